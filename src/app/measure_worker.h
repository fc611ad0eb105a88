// What this machine can do for a cluster, measured with the kernels that will do it.
#pragma once

#include <memory>

#include "base/status.h"
#include "core/control_messages.h"
#include "tensor/cpu/cpu_backend.h"

namespace tessera::app {

// Takes a second or two: one-row and many-row products with int8 weights well beyond the caches.
Result<WorkerCapabilities> measure_worker(std::shared_ptr<tensor::ThreadPool> pool, tensor::Isa isa);

}  // namespace tessera::app
