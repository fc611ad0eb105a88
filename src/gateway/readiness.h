// What /ready says: can this gateway answer a completion right now?
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/status.h"
#include "obs/health.h"

namespace tessera::gateway {

struct ReadinessOptions {
  std::chrono::milliseconds fresh{2'000};     // a probe that went well is believed for so long
  std::chrono::milliseconds timeout{10'000};  // a probe that takes longer has failed
};

// Thread-safe. Parts that say they are not ok fail at once; else a probe sends a real token over every hop.
// At most one probe runs at a time: those who ask meanwhile share its result.
class Readiness {
 public:
  using Callback = std::function<void(Status)>;
  // Calls back once, from any thread, and does not block.
  using Probe = std::function<void(Callback)>;

  // `health`, `executor` and `clock` must outlive this; results arrive on `executor`.
  Readiness(const obs::Health& health, Probe probe, Executor& executor, const Clock& clock,
            ReadinessOptions options = {});
  ~Readiness();

  // ok, or Unavailable with the stage that fails. Within this call or later.
  void check(Callback callback);
  const obs::Health& health() const;

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace tessera::gateway
