// vLLM, `vllm serve`. Names: docs.vllm.ai, "Production Metrics" and "OpenAI-Compatible Server".
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile vllm() {
  EngineProfile p;
  p.name = "vllm";
  p.title = "vLLM";
  p.version_path = "/version";
  p.version_pointer = "/version";
  p.context_in_model = {"/max_model_len"};
  p.metrics = MetricsFormat::kPrometheus;
  p.running = {"vllm:num_requests_running"};
  p.waiting = {"vllm:num_requests_waiting"};
  p.kv_use = {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"};  // the second: before its engine V1
  p.top_k = "top_k";
  p.min_p = "min_p";
  p.repetition_penalty = "repetition_penalty";
  p.min_tokens = "min_tokens";
  p.ignore_eos = "ignore_eos";
  p.stop_token_ids = "stop_token_ids";
  p.template_variables = "chat_template_kwargs";
  p.chat_ending = true;
  p.echo = true;
  p.cache_salt = "cache_salt";
  p.priority = "priority";  // only with --scheduling-policy priority; else it must be 0
  p.request_id_header = "X-Request-Id";
  p.request_id_field = "request_id";
  return p;
}

}  // namespace tessera::worker::external
