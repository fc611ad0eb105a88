// Ollama's OpenAI-compatible routes: fewer fields, no load figures; several models, loaded when they are
// asked for.
#include "worker/external/engines/engines.h"

namespace tessera::worker::external {

EngineProfile ollama() {
  EngineProfile p;
  p.name = "ollama";
  p.title = "Ollama";
  p.health_path = "/api/version";
  p.version_path = "/api/version";
  p.version_pointer = "/version";
  p.more_of_model_path = "/api/show";
  p.context_suffix = ".context_length";
  p.logit_bias = false;
  return p;
}

}  // namespace tessera::worker::external
