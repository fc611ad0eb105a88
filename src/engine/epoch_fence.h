// EpochFence: the last epoch of sessions that ended here, so that a message that comes late or twice cannot
// bring an old route back to life (invariant I5).
#pragma once

#include <deque>
#include <unordered_map>

#include "core/types.h"

namespace tessera::engine {

// Remembers the latest `capacity` ends. One thread.
class EpochFence {
 public:
  explicit EpochFence(size_t capacity) : capacity_(capacity) {}

  bool is_stale(SessionId session, Epoch epoch) const {
    auto found = ended_.find(session);
    return found != ended_.end() && epoch <= found->second;
  }

  void end(SessionId session, Epoch epoch) {
    auto [found, added] = ended_.try_emplace(session, epoch);
    if (!added) {
      if (epoch > found->second) found->second = epoch;
      return;
    }
    order_.push_back(session);
    if (order_.size() <= capacity_) return;
    ended_.erase(order_.front());
    order_.pop_front();
  }

 private:
  const size_t capacity_;
  std::unordered_map<SessionId, Epoch> ended_;
  std::deque<SessionId> order_;
};

}  // namespace tessera::engine
