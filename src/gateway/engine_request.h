// Between the API's requests and the messages of engines' workers. Pure functions.
#pragma once

#include <string>

#include "api/completer.h"
#include "core/engine_messages.h"

namespace tessera::gateway {

// What an engine must be able to do to complete it.
EngineFeatures needs_of(const api::CompletionRequest& request);
// What our own workers can do.
EngineFeatures own_features(const api::ModelInfo& info);

// `model`: the engine's name for it. ResourceExhausted: larger than a message to a worker may be.
Result<EngineRequest> to_engine(uint64_t id, const api::CompletionRequest& request, const std::string& model);
// Corrupt: the worker's message is not what it must be (`choices` were asked for).
Result<api::Delta> from_engine(const EngineDelta& delta, int choices, bool chat);
api::ApiError error_of(const EngineEnd& end);

// The request's prompt as one text whose beginnings are shared by prompts that begin alike.
std::string prompt_text(const api::CompletionRequest& request);

}  // namespace tessera::gateway
