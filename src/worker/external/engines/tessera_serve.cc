// Another Tessera's API: `tessera serve`, or the gateway of another cluster.
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile tessera_serve() {
  EngineProfile p;
  p.name = "tessera";
  p.title = "Tessera";
  p.context_in_model = {"/max_model_len"};
  p.metrics = MetricsFormat::kPrometheus;
  p.running = {"tessera_sequences{state=\"running\"}"};
  p.waiting = {"tessera_sequences{state=\"waiting\"}"};
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
  p.priority = "priority";
  p.request_id_header = "X-Request-Id";
  return p;
}

}  // namespace tessera::worker::external
