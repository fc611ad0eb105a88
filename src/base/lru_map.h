// LruMap: a bounded map that forgets what was not touched for longest. For what is worth remembering and
// never needed: hints, not state.
#pragma once

#include <list>
#include <unordered_map>
#include <utility>

namespace tessera {

// O(1) each. Not thread-safe.
template <typename Key, typename Value>
class LruMap {
 public:
  explicit LruMap(size_t most) : most_(most) {}

  // Null: not there. Does not count as a touch.
  const Value* find(const Key& key) const {
    const auto found = index_.find(key);
    return found == index_.end() ? nullptr : &found->second->second;
  }
  // The value, made where there is none; the most recently touched one now. Valid until it is forgotten,
  // which the touch of another key may do.
  Value& touch(const Key& key) {
    if (const auto found = index_.find(key); found != index_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
    } else {
      entries_.emplace_front(key, Value());
      index_[key] = entries_.begin();
      if (entries_.size() > most_) {
        index_.erase(entries_.back().first);
        entries_.pop_back();
      }
    }
    return entries_.front().second;
  }
  size_t size() const { return entries_.size(); }

 private:
  using Entries = std::list<std::pair<Key, Value>>;
  const size_t most_;  // at least 1
  Entries entries_;    // most recently touched first
  std::unordered_map<Key, typename Entries::iterator> index_;
};

}  // namespace tessera
