// Any other server of OpenAI's format: nothing is assumed beside the format itself.
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile plain_openai() {
  EngineProfile p;
  p.name = "openai";
  p.title = "an OpenAI-compatible server";
  p.health_path = "/v1/models";
  p.context_in_model = {"/max_model_len", "/context_length"};
  return p;
}

}  // namespace tessera::worker::external
