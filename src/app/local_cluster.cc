#include "app/local_cluster.h"

#include "base/sha256.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

// Ends with the first token of a session, or with its failure.
class ProbeObserver final : public cluster::SessionObserver {
 public:
  explicit ProbeObserver(std::function<void(Status)> done) : done_(std::move(done)) {}
  void on_started(int) override {}
  void on_token(const Token&) override { finish(Status()); }
  void on_failed(const Status& reason) override { finish(reason); }

 private:
  void finish(const Status& status) {
    if (done_) std::exchange(done_, nullptr)(status);
  }
  std::function<void(Status)> done_;
};

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
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, chosen_isa(options));
  local->pool_ = tensor::make_thread_pool(options.threads);

  Route route;
  for (size_t i = 0; i < opened.ranges.size(); ++i) {
    auto backend = tensor::make_cpu_backend(local->pool_, {.isa = isa});
    TESSERA_ASSIGN_OR_RETURN(auto model, load_range(opened, opened.ranges[i], *backend));
    if (i == 0) local->opened_.context_length = fitting_context(opened, options, *backend);
    local->weight_bytes_ += model->weight_bytes();
    engine::EngineOptions engine_options;
    engine_options.worker_name = "local-" + std::to_string(i);
    engine_options.model_identity = opened.identity;
    engine_options.model_name = opened.served_name;
    engine_options.kv_memory_bytes = options.kv_memory.bytes *
                                     static_cast<uint64_t>(opened.ranges[i].size()) /
                                     static_cast<uint64_t>(opened.spec.num_blocks);
    engine_options.kv_dtype = opened.kv_dtype;
    engine_options.context_length = opened.context_length;
    engine_options.max_batch_tokens = options.max_batch_tokens;
    engine_options.max_sequences = options.max_sequences;
    engine_options.prefix_cache = !options.no_prefix_cache;
    TESSERA_ASSIGN_OR_RETURN(auto engine, engine::Engine::create(std::move(model), std::move(backend),
                                                                 engine_options, local->transport_, metrics));
    local->fingerprint_ = "fp_" + to_hex(sha256(as_bytes(engine->numerics().to_string()))).substr(0, 12);
    local->opened_.context_length = std::min(local->opened_.context_length, engine->context_length());
    route.push_back({engine_options.worker_name, opened.ranges[i]});
    local->workers_.push_back(std::make_unique<worker::EngineHost>(engine_options.worker_name,
                                                                   std::move(engine), local->transport_));
  }

  local->router_ = std::make_unique<cluster::FixedRouter>(std::move(route));
  local->session_executor_ = make_thread_executor("sessions");
  local->sessions_ = std::make_unique<cluster::SessionManager>(
      cluster::SessionManagerOptions{}, local->transport_, *local->session_executor_, *local->router_);
  local->transport_.add("gateway", *local->sessions_);

  return local;
}

void LocalCluster::probe(std::function<void(Status)> done) {
  cluster::SessionRequest request;
  request.prompt = {opened_.spec.bos_token >= 0 && opened_.spec.bos_token < opened_.spec.vocab
                        ? opened_.spec.bos_token
                        : 0};
  request.params.temperature = 0;
  request.params.max_tokens = 1;
  auto observer = std::make_shared<ProbeObserver>(std::move(done));
  auto submitted = sessions_->submit(std::move(request), observer);
  if (!submitted.ok()) observer->on_failed(submitted.status());
}

LocalCluster::~LocalCluster() {
  transport_.remove("gateway");
  workers_.clear();  // no more tokens
  session_executor_.reset();
}

}  // namespace tessera::app
