#include "wire/codec_convert.h"

namespace tessera::wire::convert {
namespace {

void write_token(const EngineToken& in, pb::EngineToken& out) {
  out.set_text(in.text);
  out.set_raw(in.bytes);
  out.set_logprob(in.logprob);
}
void read_token(const pb::EngineToken& in, Checker& check, EngineToken& out) {
  out.text = check.text(in.text(), kMaxText, "score.text");
  out.bytes = check.text(in.raw(), kMaxText, "score.raw");
  out.logprob = in.logprob();  // minus infinity is a fair answer, NaN is none
  check.require(!std::isnan(in.logprob()), "logprob is not a number");
}

void write_body(const EngineRequest& in, pb::Frame& frame) {
  auto& out = *frame.mutable_engine_request();
  out.set_id(in.id);
  out.set_request_id(in.request_id);
  out.set_model(in.model);
  out.set_chat(in.chat);
  out.set_messages(in.messages);
  out.set_template_variables(in.template_variables);
  out.set_tools(in.tools);
  out.set_tool_choice(in.tool_choice);
  out.set_response_format(in.response_format);
  out.set_answer_prompt(in.answer_prompt);
  out.set_go_on(in.go_on);
  for (const auto& prompt : in.prompts) {
    auto& entry = *out.add_prompts();
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      entry.set_text(*text);
    } else {
      for (const TokenId id : std::get<1>(prompt)) entry.add_tokens(static_cast<uint32_t>(id));
    }
  }
  out.set_n(static_cast<uint32_t>(in.n));
  write_params(in.sampling, *out.mutable_sampling());
  if (in.seed) out.set_seed(*in.seed);
  if (in.max_tokens) out.set_max_tokens(static_cast<uint32_t>(*in.max_tokens));
  for (const auto& text : in.stop) out.add_stop(text);
  out.set_echo(in.echo);
  out.set_cache_salt(in.cache_salt);
  out.set_priority(in.priority);
}
EngineMessage read_body(const pb::EngineRequest& in, Checker& check) {
  EngineRequest out;
  out.id = in.id();
  out.request_id = check.text(in.request_id(), kMaxName, "request_id");
  out.model = check.name(in.model(), "model");
  out.chat = in.chat();
  out.messages = in.messages();
  out.template_variables = in.template_variables();
  out.tools = in.tools();
  out.tool_choice = in.tool_choice();
  out.response_format = in.response_format();
  out.answer_prompt = in.answer_prompt();
  out.go_on = in.go_on();
  if (check.count(in.prompts_size(), kMaxChoices, "prompts")) {
    for (const auto& entry : in.prompts()) {
      if (entry.tokens_size() == 0) {
        out.prompts.emplace_back(entry.text());
        continue;
      }
      std::vector<TokenId> ids;
      if (check.count(entry.tokens_size(), kMaxTokens, "prompt.tokens"))
        for (const uint32_t id : entry.tokens())
          ids.push_back(check.in_range(id, 0, kMaxVocab - 1, "prompt.tokens"));
      out.prompts.emplace_back(std::move(ids));
    }
  }
  check.require(out.chat != (in.prompts_size() > 0), "it has neither messages nor prompts, or both");
  out.n = check.in_range(in.n(), 1, kMaxChoices, "n");
  out.sampling = read_params(in.sampling(), check);
  if (in.has_seed()) out.seed = in.seed();
  if (in.has_max_tokens()) out.max_tokens = check.in_range(in.max_tokens(), 0, kMaxTokens, "max_tokens");
  if (check.count(in.stop_size(), kMaxInstances, "stop"))
    for (const auto& text : in.stop()) out.stop.push_back(check.text(text, kMaxText, "stop"));
  out.echo = in.echo();
  out.cache_salt = check.text(in.cache_salt(), kMaxText, "cache_salt");
  out.priority = in.priority();
  return out;
}

void write_body(const EngineCancel& in, pb::Frame& frame) {
  frame.mutable_engine_cancel()->set_id(in.id);
}
EngineMessage read_body(const pb::EngineCancel& in, Checker&) {
  return EngineCancel{in.id()};
}

void write_body(const EngineDelta& in, pb::Frame& frame) {
  auto& out = *frame.mutable_engine_delta();
  out.set_id(in.id);
  out.set_choice(static_cast<uint32_t>(in.choice));
  out.set_text(in.text);
  out.set_reasoning(in.reasoning);
  out.set_tool_calls(in.tool_calls);
  for (const auto& score : in.scores) {
    auto& entry = *out.add_scores();
    write_token(score, *entry.mutable_token());
    for (const auto& top : score.top) write_token(top, *entry.add_top());
    entry.set_scored(score.scored);
  }
  out.set_finish(static_cast<pb::FinishReason>(in.finish));
  out.set_tokens(static_cast<uint32_t>(in.tokens));
}
EngineMessage read_body(const pb::EngineDelta& in, Checker& check) {
  EngineDelta out;
  out.id = in.id();
  out.choice = check.in_range(in.choice(), 0, kMaxChoices - 1, "choice");
  out.text = in.text();
  out.reasoning = in.reasoning();
  out.tool_calls = in.tool_calls();
  if (check.count(in.scores_size(), kMaxTokens, "scores")) {
    for (const auto& entry : in.scores()) {
      EngineScore& score = out.scores.emplace_back();
      read_token(entry.token(), check, score);
      if (check.count(entry.top_size(), kMaxTopLogprobs, "score.top"))
        for (const auto& top : entry.top()) read_token(top, check, score.top.emplace_back());
      score.scored = entry.scored();
    }
  }
  out.finish = check.enumeration(in.finish(), FinishReason::kError, "finish");
  out.tokens = check.in_range(in.tokens(), 0, kMaxTokens, "tokens");
  return out;
}

void write_body(const EngineEnd& in, pb::Frame& frame) {
  auto& out = *frame.mutable_engine_end();
  out.set_id(in.id);
  out.set_status(static_cast<uint32_t>(in.status));
  out.set_message(in.message.substr(0, kMaxText));
  out.set_type(in.type.substr(0, kMaxName));
  out.set_param(in.param.substr(0, kMaxName));
  out.set_code(in.code.substr(0, kMaxName));
  out.set_engine_fault(in.engine_fault);
  out.set_prompt_tokens(static_cast<uint32_t>(in.prompt_tokens));
  out.set_completion_tokens(static_cast<uint32_t>(in.completion_tokens));
  out.set_cached_tokens(static_cast<uint32_t>(in.cached_tokens));
}
EngineMessage read_body(const pb::EngineEnd& in, Checker& check) {
  EngineEnd out;
  out.id = in.id();
  out.status = check.in_range(in.status(), 0, 599, "status");
  check.require(out.status == 0 || out.status >= 400, "status is no error's");
  out.message = check.text(in.message(), kMaxText, "message");
  out.type = check.text(in.type(), kMaxName, "type");
  out.param = check.text(in.param(), kMaxName, "param");
  out.code = check.text(in.code(), kMaxName, "code");
  out.engine_fault = in.engine_fault();
  constexpr int kMost = 1 << 30;  // of all choices together
  out.prompt_tokens = check.in_range(in.prompt_tokens(), 0, kMost, "prompt_tokens");
  out.completion_tokens = check.in_range(in.completion_tokens(), 0, kMost, "completion_tokens");
  out.cached_tokens = check.in_range(in.cached_tokens(), 0, kMost, "cached_tokens");
  return out;
}

template <typename In>
Result<EngineMessage> checked(std::string_view name, const In& in) {
  Checker check(name);
  EngineMessage message = read_body(in, check);
  if (!check.status().ok()) return check.status();
  return message;
}

}  // namespace

void write_engine_report(const EngineReport& in, pb::EngineReport& out) {
  out.set_engine(in.engine);
  out.set_version(in.version.substr(0, kMaxName));
  out.set_state(static_cast<pb::EngineState>(in.state));
  out.set_error(in.error.substr(0, kMaxText));
  for (const auto& model : in.models) {
    auto& entry = *out.add_models();
    entry.set_name(model.name);
    entry.set_context_length(static_cast<uint32_t>(model.context_length));
  }
  out.set_features(in.features);
  out.set_held(static_cast<uint32_t>(in.held));
  out.set_running(in.running);
  out.set_waiting(in.waiting);
  out.set_kv_use(in.kv_use);
  out.set_answered(static_cast<uint64_t>(in.answered));
  out.set_failed(static_cast<uint64_t>(in.failed));
  out.set_miscounted(static_cast<uint64_t>(in.miscounted));
  out.set_restarts(static_cast<uint64_t>(in.restarts));
}
EngineReport read_engine_report(const pb::EngineReport& in, Checker& check) {
  EngineReport out;
  out.engine = check.name(in.engine(), "engine.engine");
  out.version = check.text(in.version(), kMaxName, "engine.version");
  out.state = check.enumeration(in.state(), EngineState::kDown, "engine.state");
  out.error = check.text(in.error(), kMaxText, "engine.error");
  if (check.count(in.models_size(), kMaxInstances, "engine.models"))
    for (const auto& entry : in.models())
      out.models.push_back({check.name(entry.name(), "engine.model"),
                            check.in_range(entry.context_length(), 0, kMaxTokens, "engine.context_length")});
  out.features = in.features();
  constexpr int kMost = 1 << 30;
  out.held = check.in_range(in.held(), 0, kMost, "engine.held");
  out.running = check.signed_in_range(in.running(), -1, kMost, "engine.running");
  out.waiting = check.signed_in_range(in.waiting(), -1, kMost, "engine.waiting");
  out.kv_use = check.finite(in.kv_use(), "engine.kv_use");
  out.answered = check.non_negative(in.answered(), "engine.answered");
  out.failed = check.non_negative(in.failed(), "engine.failed");
  out.miscounted = check.non_negative(in.miscounted(), "engine.miscounted");
  out.restarts = check.non_negative(in.restarts(), "engine.restarts");
  return out;
}

void write(const EngineMessage& message, pb::Frame& frame) {
  std::visit([&](const auto& m) { write_body(m, frame); }, message);
}

Result<EngineMessage> read_engine(const pb::Frame& frame) {
  switch (frame.body_case()) {
    case pb::Frame::kEngineRequest:
      return checked("EngineRequest", frame.engine_request());
    case pb::Frame::kEngineCancel:
      return checked("EngineCancel", frame.engine_cancel());
    case pb::Frame::kEngineDelta:
      return checked("EngineDelta", frame.engine_delta());
    case pb::Frame::kEngineEnd:
      return checked("EngineEnd", frame.engine_end());
    default:
      return corrupt("frame: no engine's message");
  }
}

}  // namespace tessera::wire::convert
