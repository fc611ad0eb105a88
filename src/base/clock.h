// Time as an injected dependency, so that leases, deadlines and the simulated cluster need no real waiting.
#pragma once

#include <chrono>
#include <cstdint>

namespace tessera {

// Monotonic nanoseconds since an arbitrary start.
using MonotonicTime = std::chrono::nanoseconds;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonotonicTime now() const = 0;     // never goes back
  virtual int64_t unix_time_ms() const = 0;  // wall clock, for records that people read
};

class SystemClock final : public Clock {
 public:
  MonotonicTime now() const override { return std::chrono::steady_clock::now().time_since_epoch(); }
  int64_t unix_time_ms() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace tessera
