#include "base/executor.h"

#include <pthread.h>

#include <deque>
#include <future>
#include <map>
#include <thread>
#include <unordered_map>

#include "base/mutex.h"

namespace tessera {
namespace {

class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(std::string name) : thread_([this] { run(); }) {
    pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }

  ~ThreadExecutor() override { ThreadExecutor::stop(); }

  void stop() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      wake_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    decltype(tasks_) tasks;
    decltype(timers_) timers;
    MutexLock lock(mutex_);  // what they hold ends after it is released
    tasks.swap(tasks_);
    timers.swap(timers_);
    due_of_.clear();
  }

  void post(std::function<void()> task) override {
    MutexLock lock(mutex_);
    if (stopping_) return;
    tasks_.push_back(std::move(task));
    wake_.notify_one();
  }

  TimerId post_after(std::chrono::nanoseconds delay, std::function<void()> task) override {
    MutexLock lock(mutex_);
    if (stopping_) return 0;
    const TimerId id = ++last_timer_;
    const auto due = std::chrono::steady_clock::now() + delay;
    timers_.emplace(std::make_pair(due, id), std::move(task));
    due_of_[id] = due;
    wake_.notify_one();
    return id;
  }

  void cancel(TimerId timer) override {
    MutexLock lock(mutex_);
    auto found = due_of_.find(timer);
    if (found == due_of_.end()) return;
    timers_.erase({found->second, timer});
    due_of_.erase(found);
  }

 private:
  using Time = std::chrono::steady_clock::time_point;

  void run() {
    for (;;) {
      std::function<void()> task;
      {
        MutexLock lock(mutex_);
        if (!next_task(task)) return;
      }
      task();
    }
  }

  // Waits for the next task; false when stopping.
  bool next_task(std::function<void()>& task) TESSERA_REQUIRES(mutex_) {
    for (;;) {
      if (stopping_) return false;
      if (!timers_.empty() && timers_.begin()->first.first <= std::chrono::steady_clock::now()) {
        auto first = timers_.begin();
        task = std::move(first->second);
        due_of_.erase(first->first.second);
        timers_.erase(first);
        return true;
      }
      if (!tasks_.empty()) {
        task = std::move(tasks_.front());
        tasks_.pop_front();
        return true;
      }
      if (timers_.empty()) {
        wake_.wait(mutex_);
      } else {
        const Time due = timers_.begin()->first.first;  // a copy: the timer may be cancelled during the wait
        wake_.wait_until(mutex_, due);
      }
    }
  }

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> tasks_ TESSERA_GUARDED_BY(mutex_);
  std::map<std::pair<Time, TimerId>, std::function<void()>> timers_ TESSERA_GUARDED_BY(mutex_);
  std::unordered_map<TimerId, Time> due_of_ TESSERA_GUARDED_BY(mutex_);
  TimerId last_timer_ TESSERA_GUARDED_BY(mutex_) = 0;
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when the rest is ready
};

}  // namespace

std::unique_ptr<Executor> make_thread_executor(std::string name) {
  return std::make_unique<ThreadExecutor>(std::move(name));
}

void drain(Executor& executor) {
  std::promise<void> done;
  executor.post([&done] { done.set_value(); });
  done.get_future().wait();
}

}  // namespace tessera
