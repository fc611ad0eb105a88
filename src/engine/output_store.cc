#include "engine/output_store.h"

#include <algorithm>

namespace tessera::engine {

OutputStore::OutputStore(int32_t pages, int hidden_size, uint64_t budget_bytes)
    : hidden_size_(static_cast<size_t>(hidden_size)),
      budget_bytes_(budget_bytes),
      entries_(budget_bytes > 0 ? static_cast<size_t>(pages) : 0) {}

void OutputStore::touch(Entry& entry) {
  held_.splice(held_.end(), held_, entry.place);
}

// The page's entry with memory, or null when the budget has no room for one page.
OutputStore::Entry* OutputStore::make(kv::PageId page) {
  Entry& entry = entries_[static_cast<size_t>(page)];
  if (entry.data != nullptr) return &entry;
  if (page_bytes() > budget_bytes_) return nullptr;
  if (bytes() + page_bytes() > budget_bytes_) {
    Entry& oldest = entries_[static_cast<size_t>(held_.front())];
    entry.data = std::move(oldest.data);
    oldest.rows = 0;
    held_.pop_front();
  } else {
    entry.data = std::make_unique_for_overwrite<float[]>(kKvBlockTokens * hidden_size_);
  }
  entry.rows = 0;
  entry.place = held_.insert(held_.end(), page);
  return &entry;
}

void OutputStore::keep(std::span<const kv::PageId> pages, int first, std::span<const float> rows) {
  if (entries_.empty()) return;
  auto count = static_cast<int>(rows.size() / hidden_size_);
  const float* from = rows.data();
  while (count > 0) {
    const int offset = first % kKvBlockTokens;
    const int n = std::min(count, kKvBlockTokens - offset);
    const kv::PageId page = pages[static_cast<size_t>(first / kKvBlockTokens)];
    const Entry& known = entries_[static_cast<size_t>(page)];
    // After a gap nothing more of the page is kept: a replay needs it whole from some position on.
    if (offset == 0 || (known.data != nullptr && offset <= known.rows)) {
      if (Entry* entry = make(page)) {
        touch(*entry);
        std::copy_n(from, static_cast<size_t>(n) * hidden_size_,
                    entry->data.get() + static_cast<size_t>(offset) * hidden_size_);
        entry->rows = offset + n;
      }
    }
    first += n;
    count -= n;
    from += static_cast<size_t>(n) * hidden_size_;
  }
}

int OutputStore::kept_from(std::span<const kv::PageId> pages, int end) const {
  if (entries_.empty()) return end;
  int from = end;
  while (from > 0) {
    const int page_begin = (from - 1) / kKvBlockTokens * kKvBlockTokens;
    const Entry& entry =
        entries_[static_cast<size_t>(pages[static_cast<size_t>(page_begin / kKvBlockTokens)])];
    if (entry.data == nullptr || entry.rows < from - page_begin) break;
    from = page_begin;
  }
  return from;
}

bool OutputStore::read(std::span<const kv::PageId> pages, int first, int last, std::vector<float>& rows) {
  if (first < last && kept_from(pages, last) > first) return false;
  while (first < last) {
    const int offset = first % kKvBlockTokens;
    const int n = std::min(last - first, kKvBlockTokens - offset);
    Entry& entry = entries_[static_cast<size_t>(pages[static_cast<size_t>(first / kKvBlockTokens)])];
    touch(entry);
    const float* from = entry.data.get() + static_cast<size_t>(offset) * hidden_size_;
    rows.insert(rows.end(), from, from + static_cast<size_t>(n) * hidden_size_);
    first += n;
  }
  return true;
}

}  // namespace tessera::engine
