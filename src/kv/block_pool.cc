#include "kv/block_pool.h"

#include <algorithm>

#include "base/status.h"

namespace tessera::kv {

BlockPool::BlockPool(int32_t pages)
    : refs_(static_cast<size_t>(pages), 0), kept_(static_cast<size_t>(pages), 0) {
  free_list_.reserve(static_cast<size_t>(pages));
  for (PageId page = pages - 1; page >= 0; --page) free_list_.push_back(page);
}

std::optional<PageId> BlockPool::take() {
  if (free_list_.empty()) return std::nullopt;
  const PageId page = free_list_.back();
  free_list_.pop_back();
  refs_[static_cast<size_t>(page)] = 1;
  ++used_;
  return page;
}

void BlockPool::ref(PageId page) {
  int32_t& refs = refs_[static_cast<size_t>(page)];
  TESSERA_CHECK(refs > 0 || kept(page), "a reference to a free page");
  if (refs++ > 0) return;
  --cached_;
  ++used_;
  if (listener_ != nullptr) listener_->on_busy(page);
}

void BlockPool::unref(PageId page) {
  int32_t& refs = refs_[static_cast<size_t>(page)];
  TESSERA_CHECK(refs > 0, "a page given back twice");
  if (--refs > 0) return;
  --used_;
  if (!kept(page)) {
    free_list_.push_back(page);
    return;
  }
  ++cached_;
  if (listener_ != nullptr) listener_->on_idle(page);
}

void BlockPool::keep(PageId page) {
  TESSERA_CHECK(refs(page) > 0, "only a referenced page can be kept");
  kept_[static_cast<size_t>(page)] = 1;
}

void BlockPool::drop(PageId page) {
  TESSERA_CHECK(kept(page) && refs(page) == 0, "only a cached page can be dropped");
  kept_[static_cast<size_t>(page)] = 0;
  --cached_;
  free_list_.push_back(page);
}

bool BlockPool::check() const {
  int32_t used = 0, cached = 0;
  for (size_t page = 0; page < refs_.size(); ++page) {
    if (refs_[page] < 0) return false;
    if (refs_[page] > 0)
      ++used;
    else if (kept_[page] != 0)
      ++cached;
  }
  std::vector<uint8_t> seen(refs_.size(), 0);
  for (PageId page : free_list_) {
    const auto index = static_cast<size_t>(page);
    if (refs_[index] != 0 || kept_[index] != 0 || seen[index]++ != 0) return false;
  }
  return used == used_ && cached == cached_ && free() + cached + used == total();
}

void PageTable::replace(int32_t index, PageId page) {
  pool_->unref(pages_[static_cast<size_t>(index)]);
  pages_[static_cast<size_t>(index)] = page;
}

void PageTable::truncate(int32_t count) {
  while (size() > count) {
    pool_->unref(pages_.back());
    pages_.pop_back();
  }
}

}  // namespace tessera::kv
