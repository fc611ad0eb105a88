// Any bytes as the body of both completion endpoints: either a request in range, or an error with a 4xx
// status.
#include <cstdint>
#include <nlohmann/json.hpp>

#include "api/openai_request.h"

namespace {

constexpr int kVocabSize = 1000;

void check_ids(const std::vector<tessera::TokenId>& ids) {
  for (const tessera::TokenId id : ids)
    TESSERA_CHECK(id >= 0 && id < kVocabSize, "id outside the vocabulary");
}

void check(const tessera::api::ApiResult<tessera::api::OpenAiRequest>& result) {
  using tessera::api::ApiError;
  if (const auto* error = std::get_if<ApiError>(&result)) {
    TESSERA_CHECK(error->status >= 400 && error->status < 500, "a bad body is the client's mistake");
    TESSERA_CHECK(tessera::parse_json(tessera::api::error_body(*error)).ok(), "an error is JSON");
    return;
  }
  const auto& request = std::get<tessera::api::OpenAiRequest>(result).completion;
  TESSERA_CHECK(request.n >= 1 && request.n <= tessera::api::kMaxChoicesPerPrompt, "n out of range");
  TESSERA_CHECK(request.sampling.temperature >= 0 && request.sampling.temperature <= 2, "temperature");
  TESSERA_CHECK(request.sampling.top_p > 0 && request.sampling.top_p <= 1, "top_p");
  TESSERA_CHECK(!request.max_tokens || *request.max_tokens >= 0, "max_tokens");
  TESSERA_CHECK(request.chat ? request.messages != nullptr : !request.prompts.empty(), "nothing to complete");
  check_ids(request.sampling.stop_token_ids);
  for (const auto& [id, bias] : request.sampling.logit_bias) check_ids({id});
  for (const auto& prompt : request.prompts)
    if (const auto* ids = std::get_if<std::vector<tessera::TokenId>>(&prompt)) check_ids(*ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto body = tessera::parse_json({reinterpret_cast<const char*>(data), size});
  if (!body.ok()) return 0;
  tessera::api::ModelInfo model;
  model.id = "m";
  model.context_length = 64;
  model.vocab_size = kVocabSize;
  check(tessera::api::parse_chat_completion(*body, model));
  check(tessera::api::parse_text_completion(*body, model));
  return 0;
}
