// Admission: whether a request may be worked on now, by the limits and the budget of its key and tenant; and
// the meter that runs with it when it may.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/executor.h"
#include "control/quotas.h"
#include "control/tenants.h"
#include "gateway/routes.h"
#include "gateway/usage_meter.h"

namespace tessera::gateway {

// Thread-safe. `work` may wait for the shared state and the database. All references outlive it, and `work`
// runs nothing of it any more when it is destroyed.
class Admission {
 public:
  Admission(control::Quotas& quotas, control::Tenants& tenants, control::Usage& usage, UsageMeter& meter,
            Executor& work, const Clock& clock);
  ~Admission();

  // Calls `go`, now or from another thread, with a call whose record measures and whose answer tells the
  // client its limits; or answers 429 (a limit) or 402 (a budget, credit).
  void admit(const Call& call, std::function<void(const Call&)> go);
  // Something about enterprises changed here: ask the database again.
  void forget();
  size_t running() const;  // requests that hold something of a limit

 private:
  struct Spending {  // of an enterprise: its budget, its credit
    std::optional<api::ApiError> refusal;
    MonotonicTime until{};
  };
  void decide(const Call& call, const std::function<void(const Call&)>& go);
  std::optional<api::ApiError> check_spending(const std::string& enterprise);
  void renew();

  control::Quotas& quotas_;
  control::Tenants& tenants_;
  control::Usage& usage_;
  UsageMeter& meter_;
  Executor& work_;
  const Clock& clock_;
  mutable Mutex mutex_;
  std::map<std::string, Spending> spending_ TESSERA_GUARDED_BY(mutex_);
  std::map<uint64_t, control::QuotaTicket> held_ TESSERA_GUARDED_BY(mutex_);
  uint64_t last_ TESSERA_GUARDED_BY(mutex_) = 0;
  TimerId renewal_ TESSERA_GUARDED_BY(mutex_) = 0;
};

}  // namespace tessera::gateway
