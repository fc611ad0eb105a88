#include <charconv>
#include <map>

#include "base/mutex.h"
#include "store/state.h"

namespace tessera::store {
namespace {

// Expired entries that a call removes beside its work: more than one, so that they cannot pile up.
constexpr int kSweptPerCall = 4;

class MemoryState final : public State {
 public:
  MemoryState(const Clock& clock, MemoryStateOptions options) : clock_(clock), options_(options) {}

  Result<std::optional<std::string>> get(std::string_view key) override {
    MutexLock lock(mutex_);
    const auto entry = find(key);
    if (entry == entries_.end()) return std::optional<std::string>();
    return std::optional<std::string>(entry->second.value);
  }

  Status set(std::string_view key, std::string_view value, Ttl ttl) override {
    MutexLock lock(mutex_);
    return put(key, value, ttl);
  }

  Result<bool> compare_and_set(std::string_view key, std::optional<std::string_view> expected,
                               std::string_view value, Ttl ttl) override {
    MutexLock lock(mutex_);
    const auto entry = find(key);
    const bool is_as_expected = entry == entries_.end() ? !expected : expected == entry->second.value;
    if (!is_as_expected) return false;
    TESSERA_RETURN_IF_ERROR(put(key, value, ttl));
    return true;
  }

  Result<bool> compare_and_erase(std::string_view key, std::string_view expected) override {
    MutexLock lock(mutex_);
    const auto entry = find(key);
    if (entry == entries_.end() || entry->second.value != expected) return false;
    remove(entry);
    return true;
  }

  Result<int64_t> increment(std::string_view key, int64_t by, Ttl ttl_if_new) override {
    MutexLock lock(mutex_);
    const auto entry = find(key);
    if (entry == entries_.end()) {
      TESSERA_RETURN_IF_ERROR(put(key, std::to_string(by), ttl_if_new));
      return by;
    }
    int64_t value = 0;
    std::string& text = entry->second.value;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc() || end != text.data() + text.size())
      return invalid_argument("the value of '" + std::string(key) + "' is no integer");
    if (__builtin_add_overflow(value, by, &value))
      return invalid_argument("'" + std::string(key) + "' would leave the range of 64 bits");
    text = std::to_string(value);
    return value;
  }

  Result<bool> expire(std::string_view key, Ttl ttl) override {
    MutexLock lock(mutex_);
    const auto entry = find(key);
    if (entry == entries_.end()) return false;
    if (ttl && ttl->count() <= 0)
      remove(entry);
    else
      set_deadline(entry, ttl);
    return true;
  }

  Status erase(std::string_view key) override {
    MutexLock lock(mutex_);
    if (const auto entry = find(key); entry != entries_.end()) remove(entry);
    return {};
  }

 private:
  struct Entry;
  using Entries = std::map<std::string, Entry, std::less<>>;
  using Deadlines = std::multimap<MonotonicTime, Entries::iterator>;
  struct Entry {
    std::string value;
    std::optional<Deadlines::iterator> deadline;
  };

  Entries::iterator find(std::string_view key) TESSERA_REQUIRES(mutex_) {
    const MonotonicTime now = clock_.now();
    for (int i = 0; i < kSweptPerCall && !deadlines_.empty() && deadlines_.begin()->first <= now; ++i)
      remove(deadlines_.begin()->second);
    const auto entry = entries_.find(key);
    if (entry == entries_.end() || !entry->second.deadline || (*entry->second.deadline)->first > now)
      return entry;
    remove(entry);
    return entries_.end();
  }

  Status put(std::string_view key, std::string_view value, Ttl ttl) TESSERA_REQUIRES(mutex_) {
    auto entry = find(key);
    if (ttl && ttl->count() <= 0) {
      if (entry != entries_.end()) remove(entry);
      return {};
    }
    if (entry == entries_.end()) {
      if (entries_.size() >= options_.max_entries)
        return resource_exhausted("the state in memory is full (" + std::to_string(options_.max_entries) +
                                  " keys)");
      entry = entries_.emplace(std::string(key), Entry{}).first;
    }
    entry->second.value = value;
    set_deadline(entry, ttl);
    return {};
  }

  void set_deadline(Entries::iterator entry, Ttl ttl) TESSERA_REQUIRES(mutex_) {
    if (entry->second.deadline) deadlines_.erase(*entry->second.deadline);
    entry->second.deadline.reset();
    // What would expire after more than a century never does: the sum must not overflow.
    if (ttl && *ttl < std::chrono::hours(24 * 365 * 100))
      entry->second.deadline = deadlines_.emplace(clock_.now() + *ttl, entry);
  }

  void remove(Entries::iterator entry) TESSERA_REQUIRES(mutex_) {
    if (entry->second.deadline) deadlines_.erase(*entry->second.deadline);
    entries_.erase(entry);
  }

  const Clock& clock_;
  const MemoryStateOptions options_;
  Mutex mutex_;
  Entries entries_ TESSERA_GUARDED_BY(mutex_);
  Deadlines deadlines_ TESSERA_GUARDED_BY(mutex_);  // only entries with a time to live
};

}  // namespace

std::unique_ptr<State> make_memory_state(const Clock& clock, MemoryStateOptions options) {
  return std::make_unique<MemoryState>(clock, options);
}

}  // namespace tessera::store
