// Annotated mutex: clang's -Wthread-safety checks GUARDED_BY at compile time; gcc sees a plain std::mutex.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TESSERA_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define TESSERA_THREAD_ATTRIBUTE(x)
#endif
#define TESSERA_GUARDED_BY(x) TESSERA_THREAD_ATTRIBUTE(guarded_by(x))
#define TESSERA_REQUIRES(...) TESSERA_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))

namespace tessera {

class TESSERA_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() TESSERA_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() TESSERA_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class TESSERA_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TESSERA_THREAD_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() TESSERA_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex that the caller holds.
using CondVar = std::condition_variable_any;

}  // namespace tessera
