// BlockPool: who holds which KV page. Bookkeeping only; the memory belongs to the engine's stage. A page
// holds kKvBlockTokens positions of all the transformer blocks of one hop.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/types.h"

namespace tessera::kv {

using PageId = int32_t;

// Pages that hold `positions` positions.
constexpr int32_t pages_for(int64_t positions) {
  return static_cast<int32_t>((positions + kKvBlockTokens - 1) / kKvBlockTokens);
}

// Hears when pages kept for reuse become idle or busy; called by the pool within unref() and ref().
class IdleListener {
 public:
  virtual ~IdleListener() = default;
  virtual void on_idle(PageId page) = 0;
  virtual void on_busy(PageId page) = 0;
};

// Every page is in exactly one state (invariant I6: free + cached + used = total):
//   free    nobody refers to it, its contents mean nothing
//   used    at least one reference
//   cached  kept for reuse (keep()) and not referenced
// Only full pages are ever kept and so shared; a full page is never written again, hence no copy-on-write.
// One thread.
class BlockPool {
 public:
  explicit BlockPool(int32_t pages);

  int32_t total() const { return static_cast<int32_t>(refs_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_list_.size()); }
  int32_t cached() const { return cached_; }
  int32_t used() const { return used_; }

  // A free page with one reference, or nothing.
  std::optional<PageId> take();
  void ref(PageId page);
  // The last reference gone: back to free, or to cached when kept.
  void unref(PageId page);
  // Keeps a referenced page after its last reference.
  void keep(PageId page);
  // Gives up a cached page: free again.
  void drop(PageId page);
  bool kept(PageId page) const { return kept_[static_cast<size_t>(page)] != 0; }
  int32_t refs(PageId page) const { return refs_[static_cast<size_t>(page)]; }

  void set_listener(IdleListener* listener) { listener_ = listener; }

  // Recounts everything: true when the states are disjoint, complete and equal to the counters.
  bool check() const;

 private:
  std::vector<int32_t> refs_;
  std::vector<uint8_t> kept_;
  std::vector<PageId> free_list_;
  int32_t cached_ = 0;
  int32_t used_ = 0;
  IdleListener* listener_ = nullptr;
};

// The pages of one sequence in order, each holding a reference; gives them back when destroyed. Move-only.
class PageTable {
 public:
  explicit PageTable(BlockPool& pool) : pool_(&pool) {}
  ~PageTable() { truncate(0); }
  PageTable(PageTable&& other) noexcept : pool_(other.pool_), pages_(std::move(other.pages_)) {
    other.pages_.clear();
  }
  PageTable& operator=(PageTable&&) = delete;
  PageTable(const PageTable&) = delete;

  int32_t size() const { return static_cast<int32_t>(pages_.size()); }
  PageId operator[](int32_t index) const { return pages_[static_cast<size_t>(index)]; }
  // Valid until the next call that is not const.
  std::span<const PageId> view() const { return pages_; }

  // Takes over a reference that the caller holds.
  void append(PageId page) { pages_.push_back(page); }
  // Puts an equal page, of which the caller holds a reference, in the place of another.
  void replace(int32_t index, PageId page);
  // Gives back all but the first `count` pages, the last one first.
  void truncate(int32_t count);

 private:
  BlockPool* pool_;
  std::vector<PageId> pages_;
};

}  // namespace tessera::kv
