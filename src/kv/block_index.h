// BlockIndex: from the digest of a block to the page that holds it. Every full block of every sequence is
// looked up or added here within a step, so it is one probe of eight bytes and one of the digest.
#pragma once

#include <cstdint>
#include <vector>

#include "base/sha256.h"
#include "kv/block_pool.h"

namespace tessera::kv {

// Open addressing with linear probing over a table that is never more than half full; erasing moves later
// entries back (Knuth, TAOCP vol. 3, 6.4, algorithm R), so nothing is ever rebuilt. Where a digest goes
// depends on a number drawn at the start: nobody can choose prompts that crowd one place. One thread.
class BlockIndex {
 public:
  // `pages`: page numbers are in [0, pages), each in the index at most once.
  explicit BlockIndex(int32_t pages);

  // -1: not there.
  PageId find(const Digest& digest) const;
  // What was there before, or -1 and then `page` stands for the digest.
  PageId find_or_add(const Digest& digest, PageId page);
  // The page must be there.
  void erase(PageId page);
  bool holds(PageId page) const;
  int32_t size() const { return size_; }

 private:
  struct Slot {
    uint32_t place = 0;  // where it would stand in an empty table, and as a first comparison
    PageId page = -1;    // -1: empty
  };
  uint32_t place_of(const Digest& digest) const;
  size_t next(size_t slot) const { return (slot + 1) & mask_; }
  // The slot that holds the digest, or the empty one where it would go.
  size_t probe(const Digest& digest, uint32_t place) const;

  std::vector<Slot> slots_;
  std::vector<Digest> digests_;  // by page
  size_t mask_;
  uint64_t multiplier_;
  int32_t size_ = 0;
};

}  // namespace tessera::kv
