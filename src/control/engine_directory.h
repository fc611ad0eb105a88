// EngineDirectory: who wants to know of workers that stand for other engines. The coordinator holds their
// leases as it does of all workers, places no blocks on them, and tells what they report.
#pragma once

#include <string>

#include "base/status.h"
#include "core/engine_messages.h"

namespace tessera::control {

// Called on the coordinator's executor; must not block.
class EngineDirectory {
 public:
  virtual ~EngineDirectory() = default;
  // At every attach and heartbeat. `draining`: it takes no more requests.
  virtual void engine_reported(const std::string& worker, const EngineReport& report, bool draining) = 0;
  // Its connection or its lease has ended. `for_good`: it was asked to go, and has gone.
  virtual void engine_lost(const std::string& worker, const Status& cause, bool for_good) = 0;
};

}  // namespace tessera::control
