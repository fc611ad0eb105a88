// Waits between attempts to connect: they double up to a limit, with jitter so that a cluster does not return
// in step. Not thread-safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

#include "wire/link_options.h"

namespace tessera::wire {

class Backoff {
 public:
  explicit Backoff(const LinkOptions& options)
      : first_(options.first_backoff), longest_(options.longest_backoff), next_(first_) {}

  void reset() { next_ = first_; }
  std::chrono::milliseconds next() {
    const auto base = next_;
    next_ = std::min(next_ * 2, longest_);
    std::uniform_real_distribution<double> jitter(0.75, 1.25);
    return std::chrono::milliseconds(
        static_cast<int64_t>(static_cast<double>(base.count()) * jitter(random_)));
  }

 private:
  const std::chrono::milliseconds first_, longest_;
  std::chrono::milliseconds next_;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace tessera::wire
