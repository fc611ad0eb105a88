#include "app/range_engine.h"

namespace tessera::app {

Result<std::unique_ptr<engine::Engine>> make_range_engine(const OpenedModel& opened, const RangeEngine& what,
                                                          const ModelOptions& options,
                                                          std::shared_ptr<tensor::ThreadPool> pool,
                                                          MessageSink& sink, obs::Metrics* metrics,
                                                          uint64_t* weight_bytes) {
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, chosen_isa(options));
  auto backend = tensor::make_cpu_backend(std::move(pool), {.isa = isa});
  TESSERA_ASSIGN_OR_RETURN(auto model, load_range(opened, what.range, *backend));
  if (weight_bytes != nullptr) *weight_bytes = model->weight_bytes();
  engine::EngineOptions engine_options;
  engine_options.worker_name = what.worker_name;
  engine_options.model_identity = opened.identity;
  engine_options.model_name = opened.served_name;
  engine_options.kv_memory_bytes = what.kv_memory_bytes;
  engine_options.kv_dtype = opened.kv_dtype;
  engine_options.context_length = what.context_length;
  engine_options.max_batch_tokens = options.max_batch_tokens;
  engine_options.max_sequences = options.max_sequences;
  engine_options.prefix_cache = !options.no_prefix_cache;
  engine_options.output_memory_bytes = what.output_memory_bytes;
  engine_options.overlap_hops = what.output_memory_bytes > 0;  // hops of one process share its threads
  engine_options.prefill_step = std::chrono::milliseconds(10);
  return engine::Engine::create(std::move(model), std::move(backend), engine_options, sink, metrics);
}

TokenId probe_token(const model::ModelSpec& spec) {
  return spec.bos_token >= 0 && spec.bos_token < spec.vocab ? spec.bos_token : 0;
}

}  // namespace tessera::app
