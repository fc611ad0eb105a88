// A bounded multi-producer multi-consumer queue: every queue has a bound, every wait an end (invariant I8).
#pragma once

#include <chrono>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace tessera {

// Thread-safe. Order: first in, first out. The lock is held for a push or a pop only.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when full or closed: the caller must refuse or retry, never wait for ever.
  bool try_push(T item) {
    MutexLock lock(mutex_);
    if (closed_ || items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    ready_.notify_one();
    return true;
  }

  // The next item, or nothing after `timeout` or once closed and empty.
  std::optional<T> pop(std::chrono::nanoseconds timeout) {
    MutexLock lock(mutex_);
    if (!ready_.wait_for(mutex_, timeout, [&] { return !items_.empty() || closed_; }) || items_.empty())
      return std::nullopt;
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }

  // Everything that is there now, without waiting.
  std::vector<T> drain() {
    MutexLock lock(mutex_);
    std::vector<T> all(std::make_move_iterator(items_.begin()), std::make_move_iterator(items_.end()));
    items_.clear();
    return all;
  }

  // Wakes all waiters; items already queued can still be popped.
  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
    ready_.notify_all();
  }
  bool closed() const {
    MutexLock lock(mutex_);
    return closed_;
  }
  size_t size() const {
    MutexLock lock(mutex_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar ready_;
  std::deque<T> items_ TESSERA_GUARDED_BY(mutex_);
  bool closed_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera
