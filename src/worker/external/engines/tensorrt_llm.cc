// TensorRT-LLM, `trtllm-serve`. Its /metrics is a JSON list of iteration statistics, and empties what it has
// told.
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile tensorrt_llm() {
  EngineProfile p;
  p.name = "tensorrt-llm";
  p.title = "TensorRT-LLM";
  p.version_path = "/version";
  p.version_pointer = "/version";
  p.metrics = MetricsFormat::kTrtllmJson;
  p.running = {"/numActiveRequests"};
  p.waiting = {"/numQueuedRequests"};
  p.kv_use = {"/kvCacheStats/usedNumBlocks", "/kvCacheStats/maxNumBlocks"};  // one over the other
  p.top_k = "top_k";
  p.min_p = "min_p";
  p.repetition_penalty = "repetition_penalty";
  p.min_tokens = "min_tokens";
  p.ignore_eos = "ignore_eos";
  p.stop_token_ids = "stop_token_ids";
  p.template_variables = "chat_template_kwargs";
  return p;
}

}  // namespace tessera::worker::external
