// OutputStore: a hop's own outputs, kept in host memory beside the KV pages that they were computed with, so
// that a substitute of the next hop can be fed without computing them again.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "kv/block_pool.h"

namespace tessera::engine {

// Outputs belong to a page: sessions that share the page share them, and a page that is written anew from its
// first position forgets the old ones. Least recently used pages lose theirs when the budget is spent. One
// thread, the engine's.
class OutputStore {
 public:
  // `budget_bytes` 0: keeps nothing.
  OutputStore(int32_t pages, int hidden_size, uint64_t budget_bytes);

  // Keeps `rows` [n, hidden_size] of positions first, first + 1, … of the sequence whose pages these are.
  void keep(std::span<const kv::PageId> pages, int first, std::span<const float> rows);
  // The lowest position p such that outputs of [p, end) are all kept.
  int kept_from(std::span<const kv::PageId> pages, int end) const;
  // Appends the outputs of [first, last) to `rows`; false, and `rows` as it was, when one is not kept.
  bool read(std::span<const kv::PageId> pages, int first, int last, std::vector<float>& rows);

  uint64_t bytes() const { return held_.size() * page_bytes(); }

 private:
  struct Entry {
    std::unique_ptr<float[]> data;  // [kKvBlockTokens, hidden_size]; null: nothing kept
    int rows = 0;                   // from the page's first position on
    std::list<kv::PageId>::iterator place;
  };

  uint64_t page_bytes() const { return static_cast<uint64_t>(kKvBlockTokens) * hidden_size_ * sizeof(float); }
  Entry* make(kv::PageId page);
  void touch(Entry& entry);

  const size_t hidden_size_;
  const uint64_t budget_bytes_;
  std::vector<Entry> entries_;  // by page
  std::list<kv::PageId> held_;  // least recently used first
};

}  // namespace tessera::engine
