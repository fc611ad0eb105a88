// Trying again what may succeed later, a bounded number of times.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/status.h"

namespace tessera::fetch {

struct RetryPolicy {
  int max_stalls = 5;      // failures in a row without progress
  int max_attempts = 100;  // in all
  std::chrono::milliseconds first_wait{500};
  std::chrono::milliseconds longest_wait{8000};
};

inline bool may_retry(const Status& status) {
  return status.code() == Code::kUnavailable || status.code() == Code::kDeadlineExceeded;
}

// `attempt` is Status(bool& progressed); it runs until it is ok, fails for good, or the policy is used up.
template <typename Attempt>
Status with_retries(const RetryPolicy& policy, Attempt attempt) {
  int stalls = 0;
  for (int attempts = 1;; ++attempts) {
    bool progressed = false;
    Status status = attempt(progressed);
    stalls = progressed ? 0 : stalls + 1;
    if (status.ok() || !may_retry(status) || stalls >= policy.max_stalls || attempts >= policy.max_attempts)
      return status;
    const auto wait = policy.first_wait * (1 << std::min(stalls, 10));
    std::this_thread::sleep_for(std::min<std::chrono::milliseconds>(wait, policy.longest_wait));
  }
}

}  // namespace tessera::fetch
