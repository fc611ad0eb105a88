// The engines that are known, a file each.
#pragma once

#include "worker/external/profile.h"

namespace tessera::worker::external {

EngineProfile vllm();
EngineProfile sglang();
EngineProfile tensorrt_llm();
EngineProfile llama_cpp();
EngineProfile ollama();
EngineProfile tessera_serve();
EngineProfile plain_openai();

}  // namespace tessera::worker::external
