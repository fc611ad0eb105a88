// The threads of the CPU backend: they run lists of phases and sleep between them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tessera::tensor {

// Tasks [0, tasks) of a phase run in any order on any thread; a phase begins when the one before is done.
struct Phase {
  int tasks = 0;
  // worker: index of the running thread, below threads(); two tasks with equal index never overlap.
  std::function<void(int task, int worker)> run;
  // Ends the phase, on the thread that did its last task: short work that needs no meeting of its own.
  std::function<void(int worker)> then = {};
};

// Thread-safe; one list of phases runs at a time. A thread that the system has put aside holds up nobody
// unless it is inside a task: a phase is done when its tasks are, not when every thread has arrived.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // the caller of run() is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  // Returns when all phases are done. The caller takes part.
  void run(std::vector<Phase> phases);

 private:
  struct Job;
  void worker_main(int worker);
  static void walk(Job& job, int worker);

  const int threads_;
  Mutex run_mutex_;  // held for a whole run(); before job_mutex_
  Mutex job_mutex_;
  std::shared_ptr<Job> job_ TESSERA_GUARDED_BY(job_mutex_);
  std::atomic<uint32_t> generation_{0};  // counts jobs; sleeping threads wait for it to change
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace tessera::tensor
