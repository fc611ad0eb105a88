// An Executor whose time is moved by hand: tests and the simulated cluster decide what happens when.
#pragma once

#include <deque>
#include <map>

#include "base/clock.h"
#include "base/executor.h"

namespace tessera::cluster {

// Its own clock, which begins at zero. One thread only.
class ManualExecutor final : public Executor, public Clock {
 public:
  void post(std::function<void()> task) override { tasks_.push_back(std::move(task)); }
  TimerId post_after(std::chrono::nanoseconds delay, std::function<void()> task) override {
    const TimerId id = ++last_;
    timers_[{now_ + delay, id}] = std::move(task);
    return id;
  }
  void cancel(TimerId timer) override {
    std::erase_if(timers_, [timer](const auto& entry) { return entry.first.second == timer; });
  }

  MonotonicTime now() const override { return now_; }
  int64_t unix_time_ms() const override { return now_.count() / 1'000'000; }
  // Runs tasks until none is ready.
  void run() {
    while (!tasks_.empty()) {
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }
  // Moves time forward, firing timers in order.
  void advance(std::chrono::nanoseconds by) {
    const auto until = now_ + by;
    run();
    while (!timers_.empty() && timers_.begin()->first.first <= until) {
      auto first = timers_.begin();
      now_ = first->first.first;
      auto task = std::move(first->second);
      timers_.erase(first);
      task();
      run();
    }
    now_ = until;
  }

 private:
  std::chrono::nanoseconds now_{0};
  TimerId last_ = 0;
  std::deque<std::function<void()>> tasks_;
  std::map<std::pair<std::chrono::nanoseconds, TimerId>, std::function<void()>> timers_;
};

}  // namespace tessera::cluster
