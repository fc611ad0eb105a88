// One message of each kind with every field set: for the codec's tests and fuzz targets.
#pragma once

#include <vector>

#include "wire/codec.h"

namespace tessera::wire::samples {

inline SamplingParams params() {
  SamplingParams p;
  p.temperature = 0.7f;
  p.top_k = 40;
  p.top_p = 0.9f;
  p.min_p = 0.05f;
  p.repetition_penalty = 1.1f;
  p.presence_penalty = -0.5f;
  p.frequency_penalty = 0.25f;
  p.logit_bias = {{3, -100.0f}, {70000, 2.5f}};
  p.seed = 0xfedcba9876543210u;
  p.choice = 7;
  p.max_tokens = 100;
  p.min_tokens = 2;
  p.ignore_eos = true;
  p.stop_token_ids = {5, 6};
  p.top_logprobs = 5;
  p.prompt_logprobs = true;
  return p;
}

inline OpenSession open_session() {
  OpenSession m;
  m.session = 0x8000000000000001u;
  m.epoch = 3;
  m.gateway = "gateway/model";
  m.route =
      std::make_shared<const Route>(Route{{"alpha/1", {0, 8}, RowEncoding::kInt8, "10.0.0.1:7801,[::1]:7801"},
                                          {"beta/2", {8, 30}, RowEncoding::kLossless, ""}});
  m.hop = 1;
  m.tokens = std::make_shared<const std::vector<TokenId>>(std::vector<TokenId>{1, 2, 3, 151935});
  m.prompt_tokens = 3;
  m.max_length = 104;
  m.params = params();
  m.salt = std::string("tenant\0salt", 11);
  m.priority = -2;
  m.ticket = 0x0123456789abcdefu;
  m.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  return m;
}

inline Rows rows(RowEncoding encoding = RowEncoding::kLossless) {
  Rows m;
  m.session = 11;
  m.epoch = 4;
  m.start = 17;
  m.tokens = {9, 10};
  m.hidden = {1.0f, -2.0f, 0.5f, 127.0f, -0.25f, 3.0f, 448.0f, 0.0f};
  m.sample = true;
  m.replay = true;
  m.encoding = encoding;
  m.ticket = 99;
  return m;
}

inline SampledToken sampled(TokenId token) {
  SampledToken s;
  s.token = token;
  s.has_logprobs = true;
  s.logprobs.logprob = -0.5f;
  s.logprobs.top = {{token, -0.5f}, {4, -1.25f}};
  return s;
}

inline Token token() {
  Token m;
  m.session = 11;
  m.epoch = 4;
  m.position = 19;
  m.sampled = sampled(42);
  m.finish = FinishReason::kStop;
  m.prompt_logprobs = {SampledToken{}, sampled(10)};
  m.ticket = 99;
  return m;
}

inline std::vector<Message> session_messages() {
  return {open_session(),
          StartSession{11, 4, 16, 32},
          rows(),
          token(),
          CloseSession{11, 5},
          Opened{11, 5, 1, 32, 16},
          Refused{11, 5, 2, resource_exhausted("no room for 104 tokens")},
          Preempted{11, 5, 2},
          Failed{11, 5, 2, unavailable("link lost"), "beta"},
          TraceSteps{11, 5, 48},
          StepTrace{11, 5, 2, 31, 1, 16, 12, 340, 5600, 78}};
}

inline InstanceReport instance() {
  InstanceReport r;
  r.id = "i7";
  r.model = "smollm2-135m";
  r.blocks = {3, 30};
  r.state = InstanceState::kFailed;
  r.error = "disk full";
  r.numerics = "cpu/f32.1/F32-F32-F32";
  r.kv_tokens = 4096;
  r.kv_tokens_free = 1024;
  r.running = 3;
  r.tokens_replayed = 100;
  r.tokens_recomputed = 2;
  r.decode_step_s = 0.004;
  r.prefill_token_s = 0.0001;
  r.bytes_fetched = 1u << 20;
  r.bytes_total = uint64_t{1} << 40;
  return r;
}

inline EngineReport engine() {
  EngineReport r;
  r.engine = "vllm";
  r.version = "0.11.0";
  r.state = EngineState::kDown;
  r.error = "it does not answer";
  r.models = {{"org/model", 8192}};
  r.features = engine_feature::kChat | engine_feature::kTools;
  r.held = 3;
  r.running = 5;
  r.waiting = 2;
  r.kv_use = 0.25;
  r.answered = 100;
  r.failed = 4;
  r.miscounted = 1;
  r.restarts = 2;
  return r;
}

inline std::vector<EngineMessage> engine_messages() {
  EngineRequest chat;
  chat.id = 0x8000000000000001u;
  chat.request_id = "req-1";
  chat.model = "org/model";
  chat.chat = true;
  chat.messages = R"([{"role":"user","content":"é"}])";
  chat.template_variables = R"({"thinking":false})";
  chat.tools = R"([{"type":"function"}])";
  chat.tool_choice = R"("auto")";
  chat.response_format = R"({"type":"json_object"})";
  chat.go_on = true;
  chat.n = 2;
  chat.sampling = params();
  chat.seed = 7;
  chat.max_tokens = 100;
  chat.stop = {"END"};
  chat.echo = true;
  chat.cache_salt = std::string("tenant\0salt", 11);
  chat.priority = -2;
  EngineRequest text = chat;
  text.chat = false;
  text.prompts = {std::string("once"), std::vector<TokenId>{1, 151935}};
  EngineDelta delta;
  delta.id = 9;
  delta.choice = 1;
  delta.text = "upon";
  delta.reasoning = "why";
  delta.tool_calls = R"([{"index":0}])";
  EngineScore score;
  score.text = "upon";
  score.bytes = "upon";
  score.logprob = -0.5f;
  score.top = {{"upon", "upon", -0.5f}, {"\xEF\xBF\xBD", "\xC3", -1.5f}};
  delta.scores = {score};
  delta.finish = FinishReason::kStop;
  delta.tokens = 1;
  EngineEnd end;
  end.id = 9;
  end.status = 503;
  end.message = "the engine has gone";
  end.type = "server_error";
  end.param = "messages";
  end.code = "engine_failed";
  end.engine_fault = true;
  end.prompt_tokens = 10;
  end.completion_tokens = 20;
  end.cached_tokens = 5;
  return {chat, text, EngineCancel{9}, delta, end};
}

inline Hello hello() {
  Hello m;
  m.protocol = {1, 2};
  m.worker = "alpha";
  m.incarnation = 0xffffffffffffffffu;
  m.version = "0.1.0";
  m.address = "10.0.0.1:7801";
  m.capabilities = {uint64_t{8} << 30, 2e10,          5e11, 2, "CPU, AVX2, 2 threads", "cpu/int8.1",
                    BlockRange{0, 8},  "smollm2-135m"};
  m.instances = {instance()};
  m.engine = engine();
  return m;
}

inline std::vector<ControlMessage> control_messages() {
  return {
      hello(),
      Welcome{{1, 1}, "gateway", 77, 9, 3000},
      Heartbeat{9, 100, true, {instance()}, {{"beta", 0.02, 1e7}, {"gateway", 0.001, 0}}, engine()},
      HeartbeatAck{100},
      LoadInstance{
          "i8", "smollm2-135m", {0, 8}, uint64_t{1} << 30, 8192, "{\"dtype\":\"f32\"}", {"10.0.0.2:7801"}},
      UnloadInstance{"i8"},
      Drain{},
      Goodbye{"the lease ran out", true},
      ProbePeer{"beta", "10.0.0.2:7801"}};
}

}  // namespace tessera::wire::samples
