// llama.cpp, `llama-server`; metrics with its --metrics. It has no salt: where prefixes must stay apart a
// request does without the cache.
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile llama_cpp() {
  EngineProfile p;
  p.name = "llama.cpp";
  p.title = "llama.cpp";
  p.version_path = "/props";
  p.version_pointer = "/build_info";
  p.context_path = "/props";
  p.context_pointer = "/default_generation_settings/n_ctx";
  p.metrics = MetricsFormat::kPrometheus;
  p.running = {"llamacpp:requests_processing"};
  p.waiting = {"llamacpp:requests_deferred"};
  p.kv_use = {"llamacpp:kv_cache_usage_ratio"};  // releases of before 2025-09
  p.top_k = "top_k";
  p.min_p = "min_p";
  p.repetition_penalty = "repeat_penalty";
  p.ignore_eos = "ignore_eos";
  p.template_variables = "chat_template_kwargs";
  p.cache_off = "cache_prompt";
  return p;
}

}  // namespace tessera::worker::external
