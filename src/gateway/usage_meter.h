// UsageMeter: counts what each request used, and brings the records to the database exactly once.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/service.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "control/usage.h"

namespace tessera::gateway {

// Thread-safe. Records are written in batches on `work`, and again until the database takes them. All
// references outlive it, and `work` runs nothing of it any more when it is destroyed.
class UsageMeter {
 public:
  static constexpr size_t kBatch = 256;
  static constexpr size_t kMostPending =
      200'000;  // while the database is away; then the oldest are lost, and logged

  UsageMeter(control::Usage& usage, Executor& work, const Clock& clock);

  // An observer that passes everything on to `inner`, and at the end writes what was used. `on_used` hears
  // the number of tokens, once, also when nothing was (a request that was refused, or dropped unanswered).
  std::shared_ptr<api::CompletionObserver> measure(const api::Caller& caller, const std::string& request_id,
                                                   std::shared_ptr<api::CompletionObserver> inner,
                                                   std::function<void(int64_t tokens)> on_used = {});
  void add(control::UsageRecord record);
  // Writes what is pending, now; on the caller's thread. For the end.
  Status flush();
  size_t pending() const;

 private:
  void schedule(std::chrono::milliseconds delay);
  Status write_batch();

  control::Usage& usage_;
  Executor& work_;
  const Clock& clock_;
  Mutex writing_;  // held while a batch is written, before `mutex_`
  mutable Mutex mutex_;
  std::deque<control::UsageRecord> pending_ TESSERA_GUARDED_BY(mutex_);
  bool scheduled_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace tessera::gateway
