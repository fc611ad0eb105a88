#include "api/openai_response.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "net/sse.h"

namespace tessera::api {
namespace {

constexpr double kNoProbability = -9999.0;  // JSON has no -inf; clients know this number

double json_logprob(float logprob) {
  return std::isfinite(logprob) ? std::max(static_cast<double>(logprob), kNoProbability) : kNoProbability;
}

OrderedJson byte_list(const std::string& bytes) {
  OrderedJson list = OrderedJson::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

OrderedJson chat_token(const TokenText& token) {
  return {{"token", token.text}, {"logprob", json_logprob(token.logprob)}, {"bytes", byte_list(token.bytes)}};
}

// Tokens with equal replaced text would collide as keys, so part of a character is written as its bytes.
std::string legacy_token(const TokenText& token) {
  if (token.text == token.bytes || token.bytes.empty()) return token.text;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "bytes:";
  for (const char c : token.bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
  }
  return out;
}

int64_t count_characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

OrderedJson legacy_top(const TokenScore& score) {
  OrderedJson top = OrderedJson::object();
  for (const TokenText& token : score.top) top[legacy_token(token)] = json_logprob(token.logprob);
  top[legacy_token(score)] = json_logprob(score.logprob);  // the chosen one is always there
  return top;
}

OrderedJson usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson finish_json(FinishReason reason, bool called_tool) {
  if (called_tool && reason == FinishReason::kStop) return "tool_calls";
  return reason == FinishReason::kNone ? OrderedJson(nullptr) : OrderedJson(finish_name(reason));
}

// Puts deltas of tool calls together: by `index`, names and ids once, arguments piece by piece.
void merge_tool_calls(OrderedJson& whole, const OrderedJson& deltas) {
  for (const OrderedJson& delta : deltas) {
    if (!delta.is_object()) continue;
    const auto at = delta.find("index");
    const size_t index = at != delta.end() && at->is_number_unsigned() ? at->get<size_t>() : whole.size();
    if (index > whole.size() || index >= 256) continue;  // an engine's mistake: nothing to put it to
    if (index == whole.size())
      whole.push_back({{"id", ""}, {"type", "function"}, {"function", {{"name", ""}, {"arguments", ""}}}});
    OrderedJson& call = whole[index];
    const auto add = [](OrderedJson& to, const OrderedJson& from, const char* key) {
      if (auto found = from.find(key); found != from.end() && found->is_string())
        to[key] = to[key].get<std::string>() + found->get<std::string>();
    };
    add(call, delta, "id");
    if (auto function = delta.find("function"); function != delta.end() && function->is_object()) {
      add(call["function"], *function, "name");
      add(call["function"], *function, "arguments");
    }
  }
}

void add_inexact_note(OrderedJson& answer, const std::string& reason) {
  answer["tessera"] = {{"token_exact", false}, {"reason", reason}};
}

// Keys that the whole answer has, once: not a stream's every chunk.
void add_answer_notes(OrderedJson& answer, const AnswerHead& head) {
  if (!head.start.not_token_exact.empty()) add_inexact_note(answer, head.start.not_token_exact);
  if (head.chat && head.return_token_ids && !head.start.prompt_token_ids.empty())
    answer["prompt_token_ids"] = head.start.prompt_token_ids[0];
}

// Text completions may have several prompts, so the ids belong to the choice.
void add_prompt_ids(OrderedJson& choice, const AnswerHead& head, size_t prompt) {
  if (!head.chat && head.return_token_ids && prompt < head.start.prompt_token_ids.size())
    choice["prompt_token_ids"] = head.start.prompt_token_ids[prompt];
}

OrderedJson frame(const AnswerHead& head, bool chunk) {
  const char* chat_object = chunk ? "chat.completion.chunk" : "chat.completion";
  OrderedJson out{{"id", head.id},
                  {"object", head.chat ? chat_object : "text_completion"},
                  {"created", head.created},
                  {"model", head.model}};
  if (!head.start.system_fingerprint.empty()) out["system_fingerprint"] = head.start.system_fingerprint;
  return out;
}

OrderedJson choice_body(const AnswerHead& head, const CollectedChoice& collected, int index, int n,
                        bool logprobs) {
  OrderedJson choice{{"index", index}};
  if (head.chat) {
    choice["message"] = {{"role", "assistant"}, {"content", collected.text}, {"refusal", nullptr}};
    if (collected.tool_calls) {
      if (collected.text.empty()) choice["message"]["content"] = nullptr;
      choice["message"]["tool_calls"] = *collected.tool_calls;
    }
    if (!collected.reasoning.empty()) choice["message"]["reasoning_content"] = collected.reasoning;
  } else {
    choice["text"] = collected.text;
  }
  int64_t text_offset = 0;
  choice["logprobs"] = !logprobs   ? OrderedJson(nullptr)
                       : head.chat ? chat_logprobs(collected.logprobs)
                                   : text_logprobs(collected.logprobs, text_offset);
  choice["finish_reason"] = finish_json(collected.finish, collected.tool_calls != nullptr);
  if (head.return_token_ids) choice["token_ids"] = collected.token_ids;
  add_prompt_ids(choice, head, static_cast<size_t>(index / n));
  return choice;
}

}  // namespace

const char* finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
    case FinishReason::kNone:
    case FinishReason::kStop:
      break;
  }
  return "stop";
}

AnswerHead answer_head(const OpenAiRequest& request, int64_t created) {
  const CompletionRequest& completion = request.completion;
  AnswerHead head;
  head.id = (completion.chat ? "chatcmpl-" : "cmpl-") + completion.request_id;
  head.created = created;
  head.model = completion.model;
  head.chat = completion.chat;
  head.include_usage = request.include_usage;
  head.return_token_ids = completion.return_token_ids;
  return head;
}

void CollectedChoice::append(const Delta& delta) {
  text += delta.text;
  reasoning += delta.reasoning;
  token_ids.insert(token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  logprobs.insert(logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  if (delta.finish != FinishReason::kNone) finish = delta.finish;
  if (delta.tool_calls) {
    if (!tool_calls) tool_calls = std::make_shared<OrderedJson>(OrderedJson::array());
    merge_tool_calls(*tool_calls, *delta.tool_calls);
  }
}

OrderedJson chat_logprobs(const std::vector<TokenScore>& scores) {
  OrderedJson content = OrderedJson::array();
  for (const TokenScore& score : scores) {
    OrderedJson token = chat_token(score);
    token["top_logprobs"] = OrderedJson::array();
    for (const TokenText& top : score.top) token["top_logprobs"].push_back(chat_token(top));
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

OrderedJson text_logprobs(const std::vector<TokenScore>& scores, int64_t& text_offset) {
  OrderedJson tokens = OrderedJson::array(), logprobs = tokens, tops = tokens, offsets = tokens;
  for (const TokenScore& score : scores) {
    tokens.push_back(legacy_token(score));
    logprobs.push_back(score.scored ? OrderedJson(json_logprob(score.logprob)) : OrderedJson(nullptr));
    tops.push_back(score.scored ? legacy_top(score) : OrderedJson(nullptr));
    offsets.push_back(text_offset);
    text_offset += count_characters(score.text);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

std::string completion_body(const AnswerHead& head, const std::vector<CollectedChoice>& choices, int n,
                            bool logprobs, const Usage& usage) {
  OrderedJson body = frame(head, false);
  body["choices"] = OrderedJson::array();
  for (size_t i = 0; i < choices.size(); ++i)
    body["choices"].push_back(choice_body(head, choices[i], static_cast<int>(i), n, logprobs));
  body["usage"] = usage_json(usage);
  add_answer_notes(body, head);
  return dump_json(body);
}

StreamWriter::StreamWriter(AnswerHead head, int choices, int n)
    : head_(std::move(head)), n_(n), states_(static_cast<size_t>(choices)) {}

std::string StreamWriter::event(OrderedJson choices, OrderedJson usage) {
  OrderedJson chunk = frame(head_, true);
  chunk["choices"] = std::move(choices);
  if (head_.include_usage) chunk["usage"] = std::move(usage);
  if (first_event_) add_answer_notes(chunk, head_);
  first_event_ = false;
  if (!not_token_exact_.empty()) add_inexact_note(chunk, std::exchange(not_token_exact_, {}));
  return net::sse_event(dump_json(chunk));
}

std::string StreamWriter::role_event(int choice) {
  OrderedJson entry{{"index", choice},
                    {"delta", {{"role", "assistant"}, {"content", ""}}},
                    {"logprobs", nullptr},
                    {"finish_reason", nullptr}};
  return event(OrderedJson::array({std::move(entry)}), nullptr);
}

std::string StreamWriter::delta(const Delta& delta) {
  if (!delta.not_token_exact.empty()) not_token_exact_ = delta.not_token_exact;
  ChoiceState& state = states_[static_cast<size_t>(delta.choice)];
  std::string out;
  const bool first = !state.begun;
  if (first && head_.chat) out = role_event(delta.choice);
  state.begun = true;
  const bool ids = head_.return_token_ids && !delta.token_ids.empty();
  if (delta.text.empty() && delta.reasoning.empty() && delta.logprobs.empty() && !ids && !delta.tool_calls &&
      delta.finish == FinishReason::kNone) {
    // The prompt's ids must not be lost with an empty first delta.
    if (!(first && !head_.chat && head_.return_token_ids)) return out;
  }
  OrderedJson choice{{"index", delta.choice}};
  if (head_.chat) {
    choice["delta"] = OrderedJson::object();
    if (!delta.reasoning.empty()) choice["delta"]["reasoning_content"] = delta.reasoning;
    if (!delta.text.empty()) choice["delta"]["content"] = delta.text;
    if (delta.tool_calls) choice["delta"]["tool_calls"] = *delta.tool_calls;
    state.called_tool = state.called_tool || delta.tool_calls;
  } else {
    choice["text"] = delta.text;
  }
  choice["logprobs"] = delta.logprobs.empty() ? OrderedJson(nullptr)
                       : head_.chat           ? chat_logprobs(delta.logprobs)
                                              : text_logprobs(delta.logprobs, state.text_offset);
  choice["finish_reason"] = finish_json(delta.finish, state.called_tool);
  if (head_.return_token_ids) choice["token_ids"] = delta.token_ids;
  if (first) add_prompt_ids(choice, head_, static_cast<size_t>(delta.choice / n_));
  return out + event(OrderedJson::array({std::move(choice)}), nullptr);
}

std::string StreamWriter::done(const Usage& usage) {
  std::string out;
  if (head_.include_usage) out = event(OrderedJson::array(), usage_json(usage));
  return out + net::sse_event("[DONE]");
}

std::string StreamWriter::error(const ApiError& error) {
  return net::sse_event(error_body(error));
}

}  // namespace tessera::api
