// The wire formats of the engines: what a request becomes for each, and what their answers, as their
// documentation and sources describe them, are read as.
#include "worker/external/openai_wire.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "worker/external/load_figures.h"

namespace tessera::worker::external {
namespace {

using ::testing::HasSubstr;

const EngineProfile& profile(const char* name) {
  const EngineProfile* found = find_profile(name);
  TESSERA_CHECK(found != nullptr, name);
  return *found;
}

EngineRequest chat_request() {
  EngineRequest request;
  request.id = 5;
  request.request_id = "req-5";
  request.model = "org/model";
  request.chat = true;
  request.messages = R"([{"role":"user","content":"Hi"}])";
  request.max_tokens = 16;
  return request;
}

Json body_for(const char* engine, const EngineRequest& request) {
  auto body = request_body(request, profile(engine));
  EXPECT_TRUE(body.ok());
  return *parse_json(*body);
}

TEST(RequestBody, SaysOnlyWhatTheRequestSays) {
  for (const char* engine : {"vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "tessera", "openai"}) {
    EngineRequest request = chat_request();
    request.sampling.temperature = 0;
    Json body = body_for(engine, request);
    for (const char* own : {"request_id", "rid"}) body.erase(own);
    EXPECT_EQ(body,
              Json::parse(R"({"model":"org/model","messages":[{"role":"user","content":"Hi"}],"stream":true,
      "stream_options":{"include_usage":true},"max_tokens":16,"temperature":0.0,"top_p":1.0})"))
        << engine;
  }
}

TEST(RequestBody, UsesEachEnginesNamesForWhatIsBesideOpenAis) {
  EngineRequest request = chat_request();
  request.sampling.top_k = 5;
  request.sampling.repetition_penalty = 1.5f;
  request.sampling.min_p = 0.5f;
  request.cache_salt = "tenant/x";
  request.priority = 3;
  const Json vllm = body_for("vllm", request);
  EXPECT_EQ(vllm["top_k"], 5);
  EXPECT_EQ(vllm["repetition_penalty"], 1.5);
  EXPECT_EQ(vllm["cache_salt"], "tenant/x");
  EXPECT_EQ(vllm["priority"], -3) << "a lower number comes first there";
  EXPECT_EQ(vllm["request_id"], "req-5");
  EXPECT_EQ(body_for("sglang", request)["rid"], "req-5");
  const Json llama = body_for("llama.cpp", request);
  EXPECT_EQ(llama["repeat_penalty"], 1.5);
  EXPECT_EQ(llama["cache_prompt"], false) << "it has no salt: prefixes stay apart without its cache";
  EXPECT_FALSE(llama.contains("priority"));
  const Json ollama = body_for("ollama", request);
  for (const char* field : {"top_k", "min_p", "repetition_penalty", "cache_salt", "priority"})
    EXPECT_FALSE(ollama.contains(field)) << field;
  EXPECT_EQ(profile("ollama").documented() & engine_feature::kTopK, 0u);
}

TEST(RequestBody, CarriesPromptsToolsAndFormats) {
  EngineRequest request = chat_request();
  request.tools = R"([{"type":"function","function":{"name":"f"}}])";
  request.tool_choice = R"("required")";
  request.response_format = R"({"type":"json_object"})";
  request.sampling.top_logprobs = 2;
  request.n = 2;
  request.seed = 0x1'0000'0007;
  const Json chat = body_for("vllm", request);
  EXPECT_EQ(chat["tools"][0]["function"]["name"], "f");
  EXPECT_EQ(chat["tool_choice"], "required");
  EXPECT_EQ(chat["response_format"]["type"], "json_object");
  EXPECT_EQ(chat["logprobs"], true);
  EXPECT_EQ(chat["top_logprobs"], 2);
  EXPECT_EQ(chat["n"], 2);
  EXPECT_EQ(chat["seed"], 7);
  EngineRequest text;
  text.model = "m";
  text.prompts = {std::string("once"), std::vector<TokenId>{1, 2}};
  EXPECT_EQ(body_for("vllm", text)["prompt"], Json::parse(R"(["once",[1,2]])"));
  text.prompts = {std::string("once")};
  text.echo = true;
  EXPECT_EQ(body_for("vllm", text)["prompt"], "once");
  request.tools = "{";
  EXPECT_FALSE(request_body(request, profile("vllm")).ok());
}

// What a stream was read as.
struct Heard {
  std::string text, reasoning, tool_calls;
  std::vector<EngineScore> scores;
  FinishReason finish = FinishReason::kNone;
  EngineEnd end;
  bool miscounted = false;
};
Heard read(const EngineRequest& request, const char* engine, const std::vector<std::string>& events) {
  Heard heard;
  AnswerReader reader(request, profile(engine), [&](const EngineDelta& delta) {
    heard.text += delta.text;
    heard.reasoning += delta.reasoning;
    heard.tool_calls += delta.tool_calls;
    heard.scores.insert(heard.scores.end(), delta.scores.begin(), delta.scores.end());
    if (delta.finish != FinishReason::kNone) heard.finish = delta.finish;
  });
  for (const std::string& event : events)
    if (!reader.event(event)) break;
  heard.end = reader.end();
  heard.miscounted = reader.miscounted();
  return heard;
}

TEST(Answer, OfVllm) {
  const Heard heard = read(
      chat_request(), "vllm",
      {R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null})",
       R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"reasoning_content":"so"},"logprobs":null,"finish_reason":null,"token_ids":null}]})",
       R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":{"content":[{"token":"Hello","logprob":-0.25,"bytes":[72,101,108,108,111],"top_logprobs":[{"token":"Hello","logprob":-0.25,"bytes":[72]},{"token":"Hi","logprob":-1.5,"bytes":null}]}]},"finish_reason":null}]})",
       R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}]})",
       R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[],"usage":{"prompt_tokens":11,"total_tokens":14,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}})",
       "[DONE]"});
  EXPECT_EQ(heard.end.status, 0) << heard.end.message;
  EXPECT_EQ(heard.text, "Hello");
  EXPECT_EQ(heard.reasoning, "so");
  EXPECT_EQ(heard.finish, FinishReason::kStop);
  ASSERT_EQ(heard.scores.size(), 1u);
  EXPECT_EQ(heard.scores[0].bytes, "Hello");
  EXPECT_FLOAT_EQ(heard.scores[0].logprob, -0.25f);
  ASSERT_EQ(heard.scores[0].top.size(), 2u);
  EXPECT_EQ(heard.scores[0].top[1].bytes, "Hi");
  EXPECT_EQ(heard.end.prompt_tokens, 11);
  EXPECT_EQ(heard.end.completion_tokens, 3);
  EXPECT_EQ(heard.end.cached_tokens, 8);
  EXPECT_FALSE(heard.miscounted);
}

TEST(Answer, OfSglangWithAToolCall) {
  const Heard heard = read(
      chat_request(), "sglang",
      {R"({"id":"r","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null})",
       R"({"id":"r","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"role":null,"content":null,"tool_calls":[{"id":"call_1","index":0,"type":"function","function":{"name":"note","arguments":"{\"word\":"}}]},"finish_reason":null}]})",
       R"({"id":"r","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":null,"arguments":"\"apple\"}"}}]},"finish_reason":null}]})",
       R"({"id":"r","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls","matched_stop":128009}]})",
       R"({"id":"r","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[],"usage":{"prompt_tokens":40,"total_tokens":52,"completion_tokens":12,"prompt_tokens_details":null,"reasoning_tokens":0}})",
       "[DONE]"});
  EXPECT_EQ(heard.end.status, 0) << heard.end.message;
  EXPECT_THAT(heard.tool_calls, HasSubstr("call_1"));
  EXPECT_EQ(heard.finish, FinishReason::kStop);
  EXPECT_EQ(heard.end.completion_tokens, 12);
}

TEST(Answer, OfLlamaServerAndOfTextCompletions) {
  EngineRequest request;
  request.model = "m";
  request.prompts = {std::string("once")};
  request.max_tokens = 2;
  const Heard heard = read(
      request, "llama.cpp",
      {R"({"choices":[{"text":" upon","index":0,"logprobs":null,"finish_reason":null}],"created":1,"model":"m","system_fingerprint":"b1-x","object":"text_completion","id":"chatcmpl-x"})",
       R"({"choices":[{"text":" a","index":0,"logprobs":{"tokens":[" a"],"token_logprobs":[-0.5],"top_logprobs":[{" a":-0.5," the":-0.25}],"text_offset":[0]},"finish_reason":null}],"created":1,"model":"m","object":"text_completion","id":"chatcmpl-x"})",
       R"({"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"created":1,"model":"m","object":"text_completion","usage":{"completion_tokens":2,"prompt_tokens":2,"total_tokens":4},"id":"chatcmpl-x","timings":{"prompt_n":2}})",
       "[DONE]"});
  EXPECT_EQ(heard.end.status, 0) << heard.end.message;
  EXPECT_EQ(heard.text, " upon a");
  EXPECT_EQ(heard.finish, FinishReason::kLength);
  ASSERT_EQ(heard.scores.size(), 1u);
  EXPECT_EQ(heard.scores[0].top[0].text, " the") << "the best first";
  EXPECT_FALSE(heard.miscounted);
}

TEST(Answer, OfOllamaAndOfTensorRtLlm) {
  for (const char* engine : {"ollama", "tensorrt-llm"}) {
    const Heard heard = read(
        chat_request(), engine,
        {R"({"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"org/model","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},"finish_reason":null}]})",
         R"({"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"role":"assistant","content":"lo","reasoning":""},"finish_reason":null}]})",
         R"({"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]})",
         R"({"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"org/model","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}})",
         "[DONE]"});
    EXPECT_EQ(heard.end.status, 0) << heard.end.message;
    EXPECT_EQ(heard.text, "Hello");
    EXPECT_EQ(heard.end.prompt_tokens, 9);
  }
}

std::string said(const char* text, const char* finish = nullptr, int index = 0) {
  return dump_json(Json{{"choices",
                         {{{"index", index},
                           {"delta", {{"content", text}}},
                           {"finish_reason", finish == nullptr ? Json() : Json(finish)}}}}});
}
std::string usage(int prompt, int completion) {
  return dump_json(Json{{"choices", Json::array()},
                        {"usage", {{"prompt_tokens", prompt}, {"completion_tokens", completion}}}});
}

TEST(Answer, WhatIsNotAnAnswerIsTheEnginesFault) {
  const auto fails = [](std::vector<std::string> events, const char* why) {
    const Heard heard = read(chat_request(), "vllm", events);
    EXPECT_EQ(heard.end.status, 502) << why;
    EXPECT_TRUE(heard.end.engine_fault) << why;
    EXPECT_THAT(heard.end.message, HasSubstr("vLLM"));
    EXPECT_THAT(heard.end.message, HasSubstr(why));
  };
  fails({said("a"), "{\"choices\":[{"}, "no JSON object");
  fails({said("a"), "[1]"}, "no JSON object");
  fails({said("a"), R"({"choices":{}})"}, "no list");
  fails({said("a"), R"({"choices":[7]})"}, "no object");
  fails({said("a", nullptr, 1)}, "nobody asked for");
  fails({R"({"choices":[{"index":-1,"delta":{}}]})"}, "nobody asked for");
  fails({said("a", "stop"), said("b")}, "had ended");
  fails({said("a")}, "broke off");
  fails({said("a"), "[DONE]"}, "before the answer was whole");
  fails({said("a", "abort"), "[DONE]"}, "gave the request up");
  fails({R"({"choices":[{"index":0,"delta":{"tool_calls":"x"}}]})"}, "no list of objects");
}

TEST(Answer, AnErrorInTheStreamIsTold) {
  Heard heard = read(
      chat_request(), "vllm",
      {said("a"), R"({"error":{"message":"CUDA out of memory","type":"InternalServerError","code":500}})"});
  EXPECT_EQ(heard.end.status, 502);
  EXPECT_TRUE(heard.end.engine_fault);
  EXPECT_THAT(heard.end.message, HasSubstr("CUDA out of memory"));
  heard = read(chat_request(), "sglang", {R"({"object":"error","message":"too long","code":400})"});
  EXPECT_EQ(heard.end.status, 400);
  EXPECT_FALSE(heard.end.engine_fault);
}

TEST(Answer, UsageIsHeldAgainstWhatCame) {
  const auto of = [](int prompt, int completion) {
    return read(
        chat_request(), "vllm",
        {said("a"), said("b"), said("c"), said("d"), said("e", "stop"), usage(prompt, completion), "[DONE]"});
  };
  EXPECT_FALSE(of(4, 5).miscounted);
  EXPECT_TRUE(of(4, 17).miscounted) << "more than max_tokens";
  EXPECT_EQ(of(4, 17).end.completion_tokens, 5);
  EXPECT_TRUE(of(4, 0).miscounted);
  EXPECT_TRUE(of(4, 2).miscounted) << "fewer than events that carried text";
  EXPECT_TRUE(of(0, 5).miscounted);
  const Heard none = read(chat_request(), "vllm", {said("a", "stop"), "[DONE]"});
  EXPECT_TRUE(none.miscounted);
  EXPECT_EQ(none.end.status, 0);
  EXPECT_EQ(none.end.completion_tokens, 1);
}

TEST(EngineError, InWhateverShape) {
  const auto of = [](int status, const char* body) { return engine_error(status, body, profile("vllm")); };
  EngineEnd end =
      of(400, R"({"error":{"message":"bad top_k","type":"BadRequestError","param":"top_k","code":400}})");
  EXPECT_EQ(end.status, 400);
  EXPECT_EQ(end.message, "bad top_k");
  EXPECT_EQ(end.type, "invalid_request_error");
  EXPECT_EQ(end.param, "top_k");
  EXPECT_EQ(end.code, "");
  EXPECT_FALSE(end.engine_fault);
  EXPECT_EQ(of(400, R"({"object":"error","message":"m","code":40303})").message, "m");
  EXPECT_EQ(of(400, R"({"error":"plain"})").message, "plain");
  EXPECT_THAT(of(422, R"({"detail":[{"loc":["body"],"msg":"field required"}]})").message,
              HasSubstr("field required"));
  EXPECT_EQ(of(422, "{}").status, 400);
  EXPECT_EQ(of(500, "Internal Server Error").status, 502);
  EXPECT_TRUE(of(500, "").engine_fault);
  EXPECT_THAT(of(500, "Internal Server Error").message, HasSubstr("vLLM answered HTTP 500: Internal"));
  EXPECT_EQ(of(401, R"({"error":"Unauthorized"})").status, 502) << "the engine's key, not the client's";
  EXPECT_EQ(of(429, "").status, 429);
  EXPECT_EQ(of(503, R"({"error":{"message":"Loading model","type":"unavailable_error","code":503}})").status,
            503);
}

TEST(Load, OfEachEnginesMetrics) {
  const LoadFigures vllm = read_load(
      "# HELP vllm:num_requests_running x\n"
      "vllm:num_requests_running{engine=\"0\",model_name=\"a\"} 3.0\n"
      "vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 2.0\n"
      "vllm:num_requests_waiting{engine=\"0\",model_name=\"a\"} 7.0\n"
      "vllm:num_requests_waiting_by_reason{engine=\"0\"} 9.0\n"
      "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a\"} 0.5\n",
      profile("vllm"));
  EXPECT_EQ(vllm, (LoadFigures{5, 7, 0.5}));
  EXPECT_EQ(read_load("vllm:gpu_cache_usage_perc{model_name=\"a\"} 0.25\n", profile("vllm")).kv_use, 0.25);
  EXPECT_EQ(
      read_load("sglang:num_running_reqs{model_name=\"a\"} 1\nsglang:num_queue_reqs{model_name=\"a\"} 2\n"
                "sglang:token_usage{model_name=\"a\"} 0.28\n",
                profile("sglang")),
      (LoadFigures{1, 2, 0.28}));
  EXPECT_EQ(read_load("llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n", profile("llama.cpp")),
            (LoadFigures{1, 0, -1}));
  EXPECT_EQ(read_load(R"([{"numActiveRequests":1},{"numActiveRequests":2,"numQueuedRequests":4,
                      "kvCacheStats":{"usedNumBlocks":25,"maxNumBlocks":100}}])",
                      profile("tensorrt-llm")),
            (LoadFigures{2, 4, 0.25}));
  EXPECT_EQ(read_load("tessera_sequences{model=\"m\",state=\"running\"} 3\n"
                      "tessera_sequences{model=\"m\",state=\"waiting\"} 1\n",
                      profile("tessera")),
            (LoadFigures{3, 1, -1}));
  for (const char* nonsense : {"", "[]", "vllm:num_requests_running", "vllm:num_requests_running NaN\n", "{"})
    for (const char* engine : {"vllm", "tensorrt-llm", "ollama"})
      EXPECT_EQ(read_load(nonsense, profile(engine)), LoadFigures()) << nonsense;
}

TEST(Profiles, AreFoundByName) {
  EXPECT_EQ(find_profile("nothing"), nullptr);
  EXPECT_THAT(profile_names(), HasSubstr("tensorrt-llm"));
  EXPECT_NE(profile("vllm").documented() & engine_feature::kCacheSalt, 0u);
  EXPECT_EQ(profile("ollama").documented() & engine_feature::kCacheSalt, 0u);
}

}  // namespace
}  // namespace tessera::worker::external
