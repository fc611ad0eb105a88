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
};

// Waits until everything that was posted before has run. Not from a task of that executor.
void drain(Executor& executor);

// One named thread. The destructor runs no more tasks and joins.
std::unique_ptr<Executor> make_thread_executor(std::string name);

}  // namespace tessera
