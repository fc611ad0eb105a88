// CircuitBreaker: when an engine that keeps failing is left alone, and when it is tried again. A pure state
// machine: the caller says what time it is.
#pragma once

#include <algorithm>
#include <chrono>

#include "base/clock.h"

namespace tessera::control {

struct CircuitBreakerOptions {
  int failures = 3;                             // in a row, until it opens
  std::chrono::milliseconds first_pause{1000};  // doubles with each trial that fails
  std::chrono::milliseconds longest_pause{30'000};
};

// Not thread-safe.
class CircuitBreaker {
 public:
  enum class State { kClosed, kOpen, kHalfOpen };
  explicit CircuitBreaker(CircuitBreakerOptions options = {})
      : options_(options), pause_(options.first_pause) {}

  // May a request be sent now? A true answer in kHalfOpen is the one trial: begin() takes it.
  bool allows(MonotonicTime now) const {
    return state_ == State::kClosed || (state_ == State::kOpen && now >= until_);
  }
  void begin(MonotonicTime now) {
    if (state_ == State::kOpen && now >= until_) state_ = State::kHalfOpen;
  }
  // A request got an answer, or a refusal that is no fault of the engine.
  void succeeded() {
    state_ = State::kClosed;
    failures_ = 0;
    pause_ = options_.first_pause;
  }
  void failed(MonotonicTime now) {
    ++failures_;
    if (state_ == State::kClosed && failures_ < options_.failures) return;
    if (state_ == State::kOpen && now < until_) return;  // of a request sent before it opened
    if (state_ != State::kClosed)
      pause_ = std::min<std::chrono::milliseconds>(pause_ * 2, options_.longest_pause);
    state_ = State::kOpen;
    until_ = now + pause_;
  }
  // The trial ended without telling anything: its client left.
  void abandoned(MonotonicTime now) {
    if (state_ != State::kHalfOpen) return;
    state_ = State::kOpen;
    until_ = now;
  }
  State state() const { return state_; }

 private:
  CircuitBreakerOptions options_;
  State state_ = State::kClosed;
  int failures_ = 0;
  std::chrono::milliseconds pause_;
  MonotonicTime until_{};
};

}  // namespace tessera::control
