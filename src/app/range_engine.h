// An engine for a block range of an opened model, wherever it runs: in this process, in a worker.
#pragma once

#include <memory>
#include <string>

#include "app/open_model.h"
#include "engine/engine.h"
#include "tensor/cpu/cpu_backend.h"

namespace tessera::app {

struct RangeEngine {
  BlockRange range;
  std::string worker_name;
  uint64_t kv_memory_bytes = 0;
  uint64_t output_memory_bytes = 0;  // kept outputs, for failover; 0 in one process
  int context_length = 0;
};

// Loads the range with its weights; errors say what does not fit.
Result<std::unique_ptr<engine::Engine>> make_range_engine(const OpenedModel& opened, const RangeEngine& what,
                                                          const ModelOptions& options,
                                                          std::shared_ptr<tensor::ThreadPool> pool,
                                                          MessageSink& sink, obs::Metrics* metrics,
                                                          uint64_t* weight_bytes = nullptr);

// A token that every vocabulary has: what a readiness probe sends.
TokenId probe_token(const model::ModelSpec& spec);

}  // namespace tessera::app
