// What a gateway's /metrics says of its workers.
#pragma once

#include "control/coordinator.h"
#include "obs/metrics.h"

namespace tessera::gateway {

// Refreshes at every collection; when the sessions' thread does not answer soon the last values stay. Workers
// that are gone show 0. Both must outlive `metrics`' last collection.
void publish_cluster(obs::Metrics& metrics, control::Coordinator& coordinator);

}  // namespace tessera::gateway
