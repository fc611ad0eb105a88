#include "app/local_cluster.h"

#include "app/range_engine.h"
#include "base/sha256.h"
#include "cluster/probe.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

// Tokens of one sequence that the KV memory holds: what the model was made for may be more than this machine
// has.
int fitting_context(const OpenedModel& opened, const ModelOptions& options, const tensor::Backend& backend) {
  const int64_t page = backend.kv_page_bytes(opened.spec.kv_heads, opened.spec.head_dim, opened.kv_dtype) *
                       opened.spec.num_blocks;
  const int64_t tokens = static_cast<int64_t>(options.kv_memory.bytes) / page * kKvBlockTokens;
  if (options.context > 0 || tokens >= opened.context_length || tokens < kKvBlockTokens)
    return opened.context_length;
  obs::log_warn("load", "the context is cut to what --kv-memory holds",
                {{"model_context", opened.context_length}, {"context", tokens}});
  return static_cast<int>(tokens);
}

}  // namespace

Result<std::unique_ptr<LocalCluster>> LocalCluster::start(const ModelOptions& options,
                                                          obs::Metrics* metrics) {
  std::unique_ptr<LocalCluster> local(new LocalCluster);
  TESSERA_ASSIGN_OR_RETURN(local->opened_, open_model(options));
  const OpenedModel& opened = local->opened_;
  TESSERA_RETURN_IF_ERROR(check_memory(opened, options));
  TESSERA_RETURN_IF_ERROR(chosen_isa(options).status());
  local->pool_ = tensor::make_thread_pool(options.threads);
  local->opened_.context_length =
      fitting_context(opened, options, *tensor::make_cpu_backend(local->pool_, {}));

  Route route;
  for (size_t i = 0; i < opened.ranges.size(); ++i) {
    RangeEngine what;
    what.range = opened.ranges[i];
    what.worker_name = "local-" + std::to_string(i);
    what.kv_memory_bytes = options.kv_memory.bytes * static_cast<uint64_t>(what.range.size()) /
                           static_cast<uint64_t>(opened.spec.num_blocks);
    what.context_length = opened.context_length;
    uint64_t weight_bytes = 0;
    TESSERA_ASSIGN_OR_RETURN(auto engine, make_range_engine(opened, what, options, local->pool_,
                                                            local->transport_, metrics, &weight_bytes));
    local->weight_bytes_ += weight_bytes;
    local->fingerprint_ = "fp_" + to_hex(sha256(as_bytes(engine->numerics().to_string()))).substr(0, 12);
    local->opened_.context_length = std::min(local->opened_.context_length, engine->context_length());
    route.push_back({what.worker_name, what.range});
    local->workers_.push_back(
        std::make_unique<worker::EngineHost>(what.worker_name, std::move(engine), local->transport_));
  }

  local->router_ = std::make_unique<cluster::FixedRouter>(std::move(route));
  local->session_executor_ = make_thread_executor("sessions");
  cluster::SessionManagerOptions session_options;
  session_options.failover_timeout = {};  // there is no other route in one process
  local->sessions_ = std::make_unique<cluster::SessionManager>(session_options, local->transport_,
                                                               *local->session_executor_, *local->router_);
  local->transport_.add("gateway", *local->sessions_);

  return local;
}

void LocalCluster::probe(std::function<void(Status)> done) {
  cluster::probe(*sessions_, probe_token(opened_.spec), std::move(done));
}

LocalCluster::~LocalCluster() {
  transport_.remove("gateway");
  workers_.clear();  // no more tokens
  session_executor_.reset();
}

}  // namespace tessera::app
