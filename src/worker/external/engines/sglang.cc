// SGLang, `python -m sglang.launch_server`; metrics with its --enable-metrics. Names: docs.sglang.io,
// "Production Metrics" and "OpenAI APIs".
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile sglang() {
  EngineProfile p;
  p.name = "sglang";
  p.title = "SGLang";
  p.version_path = "/get_server_info";
  p.version_pointer = "/version";
  p.context_in_model = {"/max_model_len"};
  p.metrics = MetricsFormat::kPrometheus;
  p.running = {"sglang:num_running_reqs"};
  p.waiting = {"sglang:num_queue_reqs"};
  p.kv_use = {"sglang:token_usage"};
  p.top_k = "top_k";
  p.min_p = "min_p";
  p.repetition_penalty = "repetition_penalty";
  p.min_tokens = "min_tokens";
  p.ignore_eos = "ignore_eos";
  p.stop_token_ids = "stop_token_ids";
  p.template_variables = "chat_template_kwargs";
  p.cache_salt = "cache_salt";
  p.request_id_field = "rid";
  p.abort_path = "/abort_request";
  p.abort_field = "rid";
  return p;
}

}  // namespace tessera::worker::external
