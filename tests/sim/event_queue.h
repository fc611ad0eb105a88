// Simulated time: one seeded queue of events, and the processes that they belong to. A process that was
// killed runs nothing more; one that is paused (SIGSTOP) runs everything later, in order.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/executor.h"

namespace tessera::sim {

using Time = std::chrono::nanoseconds;
using Task = std::function<void()>;

// Runs the tasks of a process in place of the queue, to see what they cost.
class TaskMeter {
 public:
  virtual ~TaskMeter() = default;
  virtual void run(const Task& task) = 0;
};

struct Process {
  std::string node;     // its machine's name, which a restarted process keeps
  uint64_t number = 0;  // its own
  bool alive = true;
  bool paused = false;
  std::deque<Task> held;       // while paused
  TaskMeter* meter = nullptr;  // null: nobody looks
};
using ProcessRef = std::shared_ptr<Process>;

class EventQueue final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  int64_t unix_time_ms() const override { return now_.count() / 1'000'000; }

  // `process` null: the world itself, which nobody stops.
  void after(Time delay, ProcessRef process, Task task) {
    events_.emplace(std::make_pair(now_ + delay, ++last_), Event{std::move(process), std::move(task)});
  }
  // Runs the next event; false when there is none before `until`, and then it is `until`.
  bool run_one(Time until) {
    if (events_.empty() || events_.begin()->first.first > until) {
      now_ = until;
      return false;
    }
    auto first = events_.begin();
    now_ = first->first.first;
    const Event event = std::move(first->second);
    events_.erase(first);
    if (event.process == nullptr) {
      event.task();
    } else if (event.process->paused) {
      event.process->held.push_back(event.task);
    } else if (event.process->alive && event.process->meter != nullptr) {
      event.process->meter->run(event.task);
    } else if (event.process->alive) {
      event.task();
    }
    return true;
  }
  void resume(const ProcessRef& process) {
    process->paused = false;
    for (Task& task : std::exchange(process->held, {})) after(Time(0), process, std::move(task));
  }

 private:
  struct Event {
    ProcessRef process;
    Task task;
  };
  Time now_{0};
  uint64_t last_ = 0;
  std::map<std::pair<Time, uint64_t>, Event> events_;
};

// The executor of one process.
class ProcessExecutor final : public Executor {
 public:
  ProcessExecutor(EventQueue& queue, ProcessRef process) : queue_(queue), process_(std::move(process)) {}
  void post(Task task) override { queue_.after(Time(0), process_, std::move(task)); }
  TimerId post_after(std::chrono::nanoseconds delay, Task task) override {
    const TimerId id = ++last_;
    armed_.insert(id);
    queue_.after(delay, process_, [this, id, task = std::move(task)] {
      if (armed_.erase(id) > 0) task();
    });
    return id;
  }
  void cancel(TimerId timer) override { armed_.erase(timer); }

 private:
  EventQueue& queue_;
  const ProcessRef process_;
  TimerId last_ = 0;
  std::set<TimerId> armed_;
};

}  // namespace tessera::sim
