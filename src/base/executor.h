// Executor: where state machines run their events, one after another. Production uses a thread, the simulated
// cluster a seeded queue.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace tessera {

using TimerId = uint64_t;

// Thread-safe. Tasks of one executor never run at the same time, and run in the order of post().
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void post(std::function<void()> task) = 0;
  // Runs `task` once after `delay`, unless cancelled before.
  virtual TimerId post_after(std::chrono::nanoseconds delay, std::function<void()> task) = 0;
  virtual void cancel(TimerId timer) = 0;
  // Runs no more tasks and waits for the one that runs; what is waiting or comes later is dropped. For owners
  // that live longer than what their tasks touch. Not from a task. Nothing to do where time is moved by hand.
  virtual void stop() {}
};

// Waits until everything that was posted before has run. Not from a task of that executor, nor after stop().
void drain(Executor& executor);

// One named thread. The destructor runs no more tasks and joins.
std::unique_ptr<Executor> make_thread_executor(std::string name);

}  // namespace tessera
