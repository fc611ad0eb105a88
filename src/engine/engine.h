// Engine: one block range on one device, shared by all sessions whose routes execute it.
//
// One thread owns sequences, KV bookkeeping and the device. It drains a bounded queue of messages, builds one
// batch under a token budget (decode rows first, then chunks of prefill), runs the model once and hands the
// outputs to the sink. It never waits for the network: waiting for room is done by the gateway's sessions,
// which open again when refused. A hop that is head and tail at once feeds its own tokens back, so a
// whole-model engine is tokens in, tokens out.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "core/messages.h"
#include "model/model.h"
#include "obs/metrics.h"
#include "tensor/backend.h"

namespace tessera::engine {

struct EngineOptions {
  std::string worker_name = "local";
  std::string model_identity;  // enters every prefix hash
  std::string model_name;      // label `model` of the metrics; empty: the family
  uint64_t kv_memory_bytes = uint64_t{2} << 30;
  DType kv_dtype = DType::kF16;
  int context_length = 0;      // 0: the model's own
  int max_batch_tokens = 512;  // rows of one step
  int max_sequences = 256;     // open sessions; one more is refused
  bool prefix_cache = true;
  // Host memory for the outputs of past positions, from which a substitute of the next hop is fed; 0 where no
  // hop can be substituted.
  uint64_t output_memory_bytes = 0;
  // A head cuts its decoding sequences into as many groups as their routes have hops, so that the hops
  // compute at the same time; off where they share one device anyway.
  bool overlap_hops = true;
  // While other sequences decode here, a step with prompt rows takes about so long, or as long as two steps
  // without: the others' tokens wait no longer, and a link never holds more rows before theirs. 0: no bound
  // but max_batch_tokens (and no clock decides what a step holds, which simulations need).
  std::chrono::milliseconds prefill_step{0};
  size_t queue_capacity = 65536;
};

// Outputs go to a MessageSink, on the engine's thread; `to` is a worker's or a gateway's name.
using tessera::MessageSink;

// A snapshot for /metrics, status and invariant I6.
struct EngineStats {
  int64_t kv_free = 0, kv_cached = 0, kv_used = 0, kv_total = 0;  // pages
  int64_t running = 0;                                            // open sessions
  int64_t steps = 0;
  int64_t prefill_tokens = 0, decode_tokens = 0;
  int64_t prefix_hit_tokens = 0, prefix_query_tokens = 0;
  int64_t preemptions = 0;
  int64_t replayed_tokens = 0;    // sent again from kept outputs
  int64_t recomputed_tokens = 0;  // computed again by a hop that had computed them for the same session
  int64_t last_batch_rows = 0;
  double scheduler_seconds = 0;  // outside the device, summed
  double device_seconds = 0;
};

// Thread-safe outside: post(), stats(), stop(). Takes any of the Message kinds that a hop may receive.
class Engine {
 public:
  // `backend` must be this engine's own. Allocates KV and workspace; ResourceExhausted says what would fit.
  static Result<std::unique_ptr<Engine>> create(std::unique_ptr<model::Model> model,
                                                std::unique_ptr<tensor::Backend> backend,
                                                EngineOptions options, MessageSink& sink,
                                                obs::Metrics* metrics);
  virtual ~Engine() = default;  // stops

  virtual const model::ModelSpec& spec() const = 0;
  virtual BlockRange range() const = 0;
  virtual int context_length() const = 0;
  virtual const NumericsClass& numerics() const = 0;

  virtual void start() = 0;                // spawns the thread "engine"
  virtual bool post(Message message) = 0;  // false when the queue is full or the engine stopped
  virtual EngineStats stats() const = 0;
  // Finishes the running step, fails open sessions with Unavailable, joins.
  virtual void stop() = 0;
  // Without start(): drains the queue and runs at most one step; false when there was nothing to do. For
  // tests.
  virtual bool run_once() = 0;
};

}  // namespace tessera::engine
