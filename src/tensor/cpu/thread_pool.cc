#include "tensor/cpu/thread_pool.h"

#include <sched.h>

#include <fstream>
#include <set>
#include <string>

#include "tensor/cpu/cpu_backend.h"

namespace tessera::tensor {

namespace {

// Spins before giving the core away: a phase of a small model takes a few microseconds, a system call as
// much.
constexpr int kPhaseSpins = 2000;
constexpr int kPhaseYields = 16;
constexpr int kIdleSpins = 4000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct alignas(64) PhaseState {
  std::atomic<int> next{0};
  alignas(64) std::atomic<int> done{0};
  std::atomic<bool> over{false};
};

void wait_over(const std::atomic<bool>& over) {
  for (int i = 0; i < kPhaseSpins; ++i) {
    if (over.load(std::memory_order_acquire)) return;
    relax();
  }
  for (int i = 0; i < kPhaseYields; ++i) {
    if (over.load(std::memory_order_acquire)) return;
    std::this_thread::yield();
  }
  over.wait(false);
}

int physical_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = "cpu" + std::to_string(cpu);
    cores.insert(siblings);
  }
  return std::max<int>(1, static_cast<int>(cores.size()));
}

}  // namespace

struct ThreadPool::Job {
  explicit Job(std::vector<Phase> list) : phases(std::move(list)), state(new PhaseState[phases.size()]) {}
  std::vector<Phase> phases;
  std::unique_ptr<PhaseState[]> state;
};

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  TESSERA_CHECK(threads >= 1);
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { worker_main(i); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::walk(Job& job, int worker) {
  for (size_t p = 0; p < job.phases.size(); ++p) {
    const Phase& phase = job.phases[p];
    PhaseState& state = job.state[p];
    int ran = 0;
    if (state.next.load(std::memory_order_relaxed) < phase.tasks) {
      for (int task = state.next.fetch_add(1); task < phase.tasks; task = state.next.fetch_add(1)) {
        phase.run(task, worker);
        ++ran;
      }
    }
    if (phase.tasks == 0) continue;
    if (ran > 0 && state.done.fetch_add(ran) + ran == phase.tasks) {
      if (phase.then) phase.then(worker);
      state.over.store(true, std::memory_order_release);
      state.over.notify_all();
    } else {
      wait_over(state.over);
    }
  }
}

void ThreadPool::run(std::vector<Phase> phases) {
  MutexLock running(run_mutex_);
  if (threads_ == 1) {
    for (const Phase& phase : phases) {
      for (int task = 0; task < phase.tasks; ++task) phase.run(task, 0);
      if (phase.then && phase.tasks > 0) phase.then(0);
    }
    return;
  }
  const auto job = std::make_shared<Job>(std::move(phases));
  {
    MutexLock lock(job_mutex_);
    job_ = job;
  }
  generation_.fetch_add(1);
  generation_.notify_all();
  walk(*job, 0);
  MutexLock lock(job_mutex_);
  job_ = nullptr;  // a thread that is still on its way through the list holds a reference of its own
}

void ThreadPool::worker_main(int worker) {
  uint32_t seen = 0;
  while (true) {
    for (int i = 0; i < kIdleSpins && generation_.load(std::memory_order_acquire) == seen; ++i) relax();
    generation_.wait(seen);
    seen = generation_.load();
    if (stop_) return;
    std::shared_ptr<Job> job;
    {
      MutexLock lock(job_mutex_);
      job = job_;
    }
    if (job != nullptr) walk(*job, worker);
  }
}

std::shared_ptr<ThreadPool> make_thread_pool(int threads) {
  return std::make_shared<ThreadPool>(threads > 0 ? threads : physical_cores());
}

int thread_count(const ThreadPool& pool) {
  return pool.threads();
}

}  // namespace tessera::tensor
