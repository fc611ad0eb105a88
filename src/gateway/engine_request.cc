#include "gateway/engine_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "wire/codec.h"

namespace tessera::gateway {
namespace {

constexpr size_t kMostBytes = wire::kMaxFieldBytes - (1 << 20);

std::string json_text(const std::shared_ptr<const OrderedJson>& json) {
  return json == nullptr ? std::string() : dump_json(*json);
}

api::TokenText token_text(const EngineToken& token) {
  api::TokenText text;
  text.text = token.text;
  text.bytes = token.bytes;
  text.logprob = token.logprob;
  return text;
}

}  // namespace

EngineFeatures needs_of(const api::CompletionRequest& request) {
  using namespace engine_feature;  // NOLINT: the bits
  const SamplingParams& s = request.sampling;
  EngineFeatures needs = request.chat ? kChat : kText;
  const auto need = [&](bool condition, EngineFeatures bit) {
    if (condition) needs |= bit;
  };
  need(request.n > 1, kChoices);
  need(s.top_logprobs >= 0, kLogprobs);
  need(request.tools != nullptr, kTools);
  if (request.response_format)
    need(true, request.response_format->value("type", "") == "json_schema" ? kJsonSchema : kJsonObject);
  need(std::any_of(request.prompts.begin(), request.prompts.end(),
                   [](const api::Prompt& p) { return p.index() == 1; }),
       kTokenPrompts);
  need(s.top_k > 0, kTopK);
  need(s.min_p > 0, kMinP);
  need(s.repetition_penalty != 1, kRepetition);
  need(s.min_tokens > 0, kMinTokens);
  need(s.ignore_eos, kIgnoreEos);
  need(!s.stop_token_ids.empty(), kStopIds);
  need(!s.logit_bias.empty(), kLogitBias);
  need(request.template_variables != nullptr && !request.template_variables->empty(), kTemplate);
  need(request.chat && request.chat_ending != text::ChatEnding::kAnswerPrompt, kChatEnding);
  need(request.echo, kEcho);
  need(!request.cache_salt.empty(), kCacheSalt);
  need(request.return_token_ids, kTokenIds);
  need(s.prompt_logprobs, kPromptLogprobs);
  return needs;
}

EngineFeatures own_features(const api::ModelInfo& info) {
  using namespace engine_feature;  // NOLINT: the bits
  EngineFeatures features = kAll & ~(kTools | kJsonObject | kJsonSchema);
  if (!info.has_chat_template) features &= ~kChat;
  return features;
}

Result<EngineRequest> to_engine(uint64_t id, const api::CompletionRequest& request,
                                const std::string& model) {
  EngineRequest out;
  out.id = id;
  out.request_id = request.request_id.substr(0, wire::kMaxName);
  out.model = model;
  out.chat = request.chat;
  out.messages = json_text(request.messages);
  out.template_variables = json_text(request.template_variables);
  out.tools = json_text(request.tools);
  out.tool_choice = json_text(request.tool_choice);
  out.response_format = json_text(request.response_format);
  out.answer_prompt = request.chat_ending == text::ChatEnding::kAnswerPrompt;
  out.go_on = request.chat_ending == text::ChatEnding::kOpen;
  if (!request.chat) out.prompts = request.prompts;
  out.n = request.n;
  out.sampling = request.sampling;
  // What is beyond the wire's bounds changes nothing.
  out.sampling.top_k = out.sampling.top_k >= wire::kMaxVocab ? 0 : out.sampling.top_k;
  out.sampling.min_tokens = std::min(out.sampling.min_tokens, wire::kMaxTokens);
  out.sampling.max_tokens = 0;
  out.seed = request.seed;
  if (request.max_tokens) out.max_tokens = std::min(*request.max_tokens, wire::kMaxTokens);
  out.stop = request.stop;
  out.echo = request.echo;
  out.cache_salt = request.cache_salt.substr(0, wire::kMaxText);
  out.priority = request.priority;
  size_t bytes =
      out.messages.size() + out.template_variables.size() + out.tools.size() + out.response_format.size();
  for (const auto& prompt : out.prompts)
    bytes += prompt.index() == 0 ? std::get<0>(prompt).size() : 4 * std::get<1>(prompt).size();
  if (bytes > kMostBytes)
    return resource_exhausted("The request is larger than the " + std::to_string(kMostBytes >> 20) +
                              " MiB that travel to an engine's worker.");
  return out;
}

Result<api::Delta> from_engine(const EngineDelta& delta, int choices, bool chat) {
  if (delta.choice >= choices) return corrupt("a choice that nobody asked for");
  api::Delta out;
  out.choice = delta.choice;
  out.text = delta.text;
  out.reasoning = delta.reasoning;
  for (const EngineScore& score : delta.scores) {
    api::TokenScore& token = out.logprobs.emplace_back();
    static_cast<api::TokenText&>(token) = token_text(score);
    for (const EngineToken& top : score.top) token.top.push_back(token_text(top));
    token.scored = score.scored;
  }
  out.finish = delta.finish;
  out.unnamed_tokens = delta.tokens;
  if (!delta.tool_calls.empty() && chat) {
    TESSERA_ASSIGN_OR_RETURN(OrderedJson calls, parse_ordered_json(delta.tool_calls));
    const bool fine = calls.is_array() && std::all_of(calls.begin(), calls.end(),
                                                      [](const OrderedJson& c) { return c.is_object(); });
    if (!fine) return corrupt("tool calls that are no list of objects");
    out.tool_calls = std::make_shared<const OrderedJson>(std::move(calls));
  }
  return out;
}

api::ApiError error_of(const EngineEnd& end) {
  api::ApiError error;
  error.status = end.status;
  error.message = end.message;
  error.type = end.type.empty() ? "server_error" : end.type;
  error.param = end.param;
  error.code = end.code;
  if (end.status == 429 || end.status == 503) error.retry_after_s = 1;
  return error;
}

std::string prompt_text(const api::CompletionRequest& request) {
  if (request.chat) return json_text(request.messages);
  if (request.prompts.empty()) return {};
  if (const auto* text = std::get_if<std::string>(&request.prompts[0])) return *text;
  const auto& ids = std::get<1>(request.prompts[0]);
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(TokenId)};
}

}  // namespace tessera::gateway
