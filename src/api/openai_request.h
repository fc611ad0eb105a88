// The bodies of POST /v1/chat/completions and /v1/completions, checked field by field.
#pragma once

#include <optional>
#include <string>

#include "api/completer.h"
#include "api/errors.h"
#include "base/json.h"

namespace tessera::api {

constexpr int kMaxChoicesPerPrompt = 128;
constexpr int kMaxTopLogprobs = 20;
constexpr size_t kMaxPrompts = 2048;         // of one request; times n, too
constexpr size_t kMaxStopStrings = 64;       // more are refused
constexpr size_t kMaxStopStringBytes = 512;  // each
constexpr int kDefaultTextMaxTokens = 16;    // OpenAI's default of /v1/completions

// A checked request and how its answer travels.
struct OpenAiRequest {
  CompletionRequest completion;
  bool stream = false;
  bool include_usage = false;  // a last chunk with the usage, in a stream
};

// The `model` field: nullopt when absent or null.
ApiResult<std::optional<std::string>> requested_model(const Json& body);

// Missing fields and nulls get their defaults. A wrong type or value, and a field that would change the
// result but is not built, is a 400 that names it in `param`. Fields that nobody knows are ignored, as
// clients expect. `request_id` is left to the caller.
ApiResult<OpenAiRequest> parse_chat_completion(const Json& body, const ModelInfo& model);
ApiResult<OpenAiRequest> parse_text_completion(const Json& body, const ModelInfo& model);

// The `prompt` field as a list: text, list of texts, ids, or list of lists of ids.
ApiResult<std::vector<Prompt>> parse_prompts(const Json* prompt, const ModelInfo& model);

}  // namespace tessera::api
