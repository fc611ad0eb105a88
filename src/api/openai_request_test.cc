#include "api/openai_request.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tessera::api {
namespace {

ModelInfo model() {
  ModelInfo info;
  info.id = "m";
  info.context_length = 64;
  info.vocab_size = 100;
  return info;
}

ApiResult<OpenAiRequest> chat(const std::string& fields) {
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}])";
  auto body = parse_json(messages + (fields.empty() ? "" : ",") + fields + "}");
  EXPECT_TRUE(body.ok()) << fields << ": " << body.status().to_string();
  return parse_chat_completion(*body, model());
}
ApiResult<OpenAiRequest> text(const std::string& fields) {
  auto body = parse_json("{" + fields + "}");
  EXPECT_TRUE(body.ok()) << fields << ": " << body.status().to_string();
  return parse_text_completion(*body, model());
}
// The request, or a failure of the test that shows the error.
CompletionRequest good(ApiResult<OpenAiRequest> result) {
  if (const auto* error = std::get_if<ApiError>(&result)) {
    ADD_FAILURE() << error->param << ": " << error->message;
    return {};
  }
  return std::get<OpenAiRequest>(result).completion;
}
// "status param" of the error, or "ok".
std::string verdict(const ApiResult<OpenAiRequest>& result) {
  const auto* error = std::get_if<ApiError>(&result);
  return error ? std::to_string(error->status) + " " + error->param : "ok";
}

TEST(ChatRequest, FillsDefaults) {
  const CompletionRequest request = good(chat(""));
  EXPECT_TRUE(request.chat);
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.n, 1);
  EXPECT_FALSE(request.max_tokens);
  EXPECT_FALSE(request.seed);
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.top_logprobs, -1);
  EXPECT_EQ(request.sampling.top_k, 0);
}

TEST(ChatRequest, ReadsEveryField) {
  auto result = chat(R"("max_tokens":9,"max_completion_tokens":5,"temperature":0.5,"top_p":0.25,"top_k":3,
      "min_p":0.125,"repetition_penalty":1.5,"presence_penalty":-2,"frequency_penalty":2,"n":128,"seed":-1,
      "stop":["a","b"],"stop_token_ids":[1,99],"ignore_eos":true,"min_tokens":2,"logit_bias":{"7":-100},
      "logprobs":true,"top_logprobs":20,"stream":true,"stream_options":{"include_usage":true},
      "return_token_ids":true,"chat_template_kwargs":{"enable_thinking":false},"cache_salt":"s","priority":-3)");
  const CompletionRequest request = good(result);
  EXPECT_EQ(request.max_tokens, 5);
  EXPECT_EQ(request.sampling.temperature, 0.5f);
  EXPECT_EQ(request.sampling.top_p, 0.25f);
  EXPECT_EQ(request.sampling.top_k, 3);
  EXPECT_EQ(request.sampling.min_p, 0.125f);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(request.sampling.presence_penalty, -2);
  EXPECT_EQ(request.sampling.frequency_penalty, 2);
  EXPECT_EQ(request.n, 128);
  EXPECT_EQ(request.seed, UINT64_MAX);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request.sampling.stop_token_ids, (std::vector<TokenId>{1, 99}));
  EXPECT_TRUE(request.sampling.ignore_eos);
  EXPECT_EQ(request.sampling.min_tokens, 2);
  ASSERT_EQ(request.sampling.logit_bias.size(), 1u);
  EXPECT_EQ(request.sampling.logit_bias[0], std::make_pair(TokenId{7}, -100.0f));
  EXPECT_EQ(request.sampling.top_logprobs, 20);
  EXPECT_TRUE(request.return_token_ids);
  EXPECT_EQ((*request.template_variables)["enable_thinking"], false);
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_EQ(request.priority, 3);  // the wire counts the other way
  EXPECT_TRUE(std::get<OpenAiRequest>(result).stream);
  EXPECT_TRUE(std::get<OpenAiRequest>(result).include_usage);
}

TEST(ChatRequest, TopPOfZeroIsGreedy) {
  const CompletionRequest request = good(chat(R"("top_p":0)"));
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.sampling.top_p, 1);
}

TEST(ChatRequest, AcceptsWhatChangesNothing) {
  for (const char* fields : {R"("user":"u")",
                             R"("metadata":{"a":"b"})",
                             R"("store":true)",
                             R"("service_tier":"auto")",
                             R"("parallel_tool_calls":true)",
                             R"("tools":[])",
                             R"("tools":null)",
                             R"("tool_choice":"none")",
                             R"("response_format":{"type":"text"})",
                             R"("modalities":["text"])",
                             R"("temperature":null)",
                             R"("stop":null)",
                             R"("logprobs":false)",
                             R"("seed":18446744073709551615)",
                             R"("top_k":-1)",
                             R"("max_tokens":16.0)",
                             R"("nobody_knows_this":[1,2,{}])",
                             R"("n":1,"n":2)",
                             R"("max_tokens":0)",
                             R"("reasoning_effort":null)",
                             R"("skip_special_tokens":true)",
                             R"("length_penalty":1)"})
    EXPECT_EQ(verdict(chat(fields)), "ok") << fields;
}

TEST(ChatRequest, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("tools":[{"type":"function","function":{"name":"f"}}])", "tools"},
      {R"("tool_choice":"required")", "tool_choice"},
      {R"("functions":[{"name":"f"}])", "functions"},
      {R"("response_format":{"type":"json_object"})", "response_format"},
      {R"("modalities":["text","audio"])", "modalities"},
      {R"("audio":{"voice":"x"})", "audio"},
      {R"("prediction":{"type":"content","content":"x"})", "prediction"},
      {R"("web_search_options":{})", "web_search_options"},
      {R"("reasoning_effort":"high")", "reasoning_effort"},
      {R"("guided_regex":"a+")", "guided_regex"},
      {R"("continue_final_message":true)", "continue_final_message"},
      {R"("add_generation_prompt":1)", "add_generation_prompt"},
      {R"("best_of":2)", "best_of"},
      {R"("n_predict":5)", "n_predict"},
      {R"("top_a":0.2)", "top_a"},
      {R"("thinking":{"type":"enabled"})", "thinking"},
      {R"("lora":[{"id":0,"scale":0.5}])", "lora"},
      {R"("adapter":"mine")", "adapter"},
      {R"("typical_p":0.5)", "typical_p"},
      {R"("mirostat":2)", "mirostat"},
      {R"("grammar":"root ::= [0-9]")", "grammar"},
      {R"("suffix":"x")", "suffix"},
      {R"("skip_special_tokens":false)", "skip_special_tokens"},
      {R"("echo":true)", "echo"},
      {R"("temperature":2.1)", "temperature"},
      {R"("temperature":-0.1)", "temperature"},
      {R"("temperature":"NaN")", "temperature"},
      {R"("temperature":[1])", "temperature"},
      {R"("top_p":1.5)", "top_p"},
      {R"("min_p":-1)", "min_p"},
      {R"("top_k":-2)", "top_k"},
      {R"("top_k":1.5)", "top_k"},
      {R"("repetition_penalty":0)", "repetition_penalty"},
      {R"("presence_penalty":2.5)", "presence_penalty"},
      {R"("n":0)", "n"},
      {R"("n":129)", "n"},
      {R"("n":true)", "n"},
      {R"("n":1180591620717411303424)", "n"},
      {R"("max_tokens":-1)", "max_tokens"},
      {R"("max_tokens":1e300)", "max_tokens"},
      {R"("max_tokens":"5")", "max_tokens"},
      {R"("max_completion_tokens":-1)", "max_completion_tokens"},
      {R"("min_tokens":3,"max_tokens":2)", "min_tokens"},
      {R"("seed":1.5)", "seed"},
      {R"("seed":1180591620717411303424)", "seed"},
      {R"("stop":5)", "stop"},
      {R"("stop":["a",5])", "stop"},
      {R"("stop":"")", "stop"},
      {R"("stop_token_ids":[100])", "stop_token_ids"},
      {R"("stop_token_ids":[-1])", "stop_token_ids"},
      {R"("stop_token_ids":["1"])", "stop_token_ids"},
      {R"("logit_bias":{"100":1})", "logit_bias"},
      {R"("logit_bias":{"x":1})", "logit_bias"},
      {R"("logit_bias":{"99999999999999999999":1})", "logit_bias"},
      {R"("logit_bias":{"1":101})", "logit_bias"},
      {R"("logit_bias":[])", "logit_bias"},
      {R"("logprobs":5)", "logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
      {R"("top_logprobs":1)", "top_logprobs"},
      {R"("stream":"yes")", "stream"},
      {R"("stream_options":{"include_usage":true})", "stream_options"},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
      {R"("chat_template_kwargs":[])", "chat_template_kwargs"},
      {R"("chat_template_kwargs":{"messages":[]})", "chat_template_kwargs"},
  };
  for (const auto& [fields, param] : cases)
    EXPECT_EQ(verdict(chat(fields)), std::string("400 ") + param) << fields;
}

TEST(ChatRequest, SaysHowTheConversationEnds) {
  EXPECT_EQ(good(chat("")).chat_ending, text::ChatEnding::kAnswerPrompt);
  EXPECT_EQ(good(chat(R"("add_generation_prompt":false)")).chat_ending, text::ChatEnding::kNone);
  const auto with_answer = [](const std::string& fields) {
    const std::string messages =
        R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"He"}],)";
    return parse_chat_completion(*parse_json(messages + fields + "}"), model());
  };
  EXPECT_EQ(good(with_answer(R"("continue_final_message":true)")).chat_ending, text::ChatEnding::kOpen);
  EXPECT_EQ(good(with_answer(R"("continue_final_message":true,"add_generation_prompt":false)")).chat_ending,
            text::ChatEnding::kOpen);
  EXPECT_EQ(verdict(with_answer(R"("continue_final_message":true,"add_generation_prompt":true)")),
            "400 continue_final_message");
}

TEST(ChatMessages, AreFlattened) {
  auto body = parse_json(R"({"messages":[
      {"role":"developer","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"ann"},
      {"role":"assistant","content":null,"tool_calls":[]},
      {"role":"tool","content":"4","tool_call_id":"x"}]})");
  const CompletionRequest request = good(parse_chat_completion(*body, model()));
  EXPECT_EQ(dump_json(*request.messages),
            R"([{"role":"system","content":"be brief"},{"role":"user","content":"a\nb","name":"ann"},)"
            R"({"role":"assistant","content":""},{"role":"tool","content":"4","tool_call_id":"x"}])");
}

TEST(ChatMessages, AreRefusedByPosition) {
  const std::pair<const char*, const char*> cases[] = {
      {"null", "messages"},
      {"[]", "messages"},
      {R"("hi")", "messages"},
      {R"([5])", "messages[0]"},
      {R"([{"content":"x"}])", "messages[0].role"},
      {R"([{"role":"wizard","content":"x"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content"},
      {R"([{"role":"user","content":{"a":1}}])", "messages[0].content"},
      {R"([{"role":"user","content":"x"},{"role":"user","content":[{"type":"image_url"}]}])",
       "messages[1].content[0]"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
      {R"([{"role":"user","content":[{"text":"x"}]}])", "messages[0].content[0].type"},
      {R"([{"role":"user","content":"x","name":7}])", "messages[0].name"},
      {R"([{"role":"user","content":"x","name":[]}])", "messages[0].name"},
      {R"([{"role":"assistant","tool_calls":[{}]}])", "messages[0].tool_calls"},
  };
  for (const auto& [messages, param] : cases) {
    auto body = parse_json(std::string(R"({"messages":)") + messages + "}");
    EXPECT_EQ(verdict(parse_chat_completion(*body, model())), std::string("400 ") + param) << messages;
  }
}

TEST(ChatMessages, TemplateVariablesAreBounded) {
  std::string many = "[0";
  for (int i = 0; i < 5000; ++i) many += ",0";
  EXPECT_EQ(verdict(chat(R"("chat_template_kwargs":{"a":)" + many + "]}")), "400 chat_template_kwargs");
}

TEST(ChatRequest, NeedsATemplate) {
  ModelInfo bare = model();
  bare.has_chat_template = false;
  auto body = parse_json(R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(verdict(parse_chat_completion(*body, bare)), "400 messages");
}

TEST(TextRequest, TakesFourKindsOfPrompt) {
  EXPECT_EQ(std::get<std::string>(good(text(R"("prompt":"hi")")).prompts.at(0)), "hi");
  EXPECT_EQ(good(text(R"("prompt":["a","b"])")).prompts.size(), 2u);
  EXPECT_EQ(std::get<std::vector<TokenId>>(good(text(R"("prompt":[1,2,3])")).prompts.at(0)),
            (std::vector<TokenId>{1, 2, 3}));
  const auto lists = good(text(R"("prompt":[[1],[2,3]])")).prompts;
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(std::get<std::vector<TokenId>>(lists[1]), (std::vector<TokenId>{2, 3}));
}

TEST(TextRequest, DefaultsAndScoring) {
  const CompletionRequest plain = good(text(R"("prompt":"x")"));
  EXPECT_EQ(plain.max_tokens, 16);
  EXPECT_FALSE(plain.sampling.prompt_logprobs);
  const CompletionRequest scoring = good(text(R"("prompt":"x","echo":true,"logprobs":0,"max_tokens":0)"));
  EXPECT_EQ(scoring.max_tokens, 0);
  EXPECT_TRUE(scoring.echo);
  EXPECT_EQ(scoring.sampling.top_logprobs, 0);
  EXPECT_TRUE(scoring.sampling.prompt_logprobs);
}

TEST(TextRequest, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("n":1)", "prompt"},
      {R"("prompt":null)", "prompt"},
      {R"("prompt":[])", "prompt"},
      {R"("prompt":[[]])", "prompt"},
      {R"("prompt":{})", "prompt"},
      {R"("prompt":["a",1])", "prompt"},
      {R"("prompt":[1,"a"])", "prompt"},
      {R"("prompt":[[1],2])", "prompt"},
      {R"("prompt":[100])", "prompt"},
      {R"("prompt":[-1])", "prompt"},
      {R"("prompt":[1.5])", "prompt"},
      {R"("prompt":[[[1]]])", "prompt"},
      {R"("prompt":"x","logprobs":21)", "logprobs"},
      {R"("prompt":"x","logprobs":-1)", "logprobs"},
      {R"("prompt":"x","logprobs":true)", "logprobs"},
      {R"("prompt":"x","best_of":3)", "best_of"},
      {R"("prompt":"x","suffix":"y")", "suffix"},
      {R"("prompt":"x","echo":1)", "echo"},
      {R"("prompt":"x","max_tokens":-1)", "max_tokens"},
      {R"("prompt":"x","add_special_tokens":false)", "add_special_tokens"},
  };
  for (const auto& [fields, param] : cases)
    EXPECT_EQ(verdict(text(fields)), std::string("400 ") + param) << fields;
}

TEST(TextRequest, BoundsPromptsAndChoices) {
  std::string prompts = R"("prompt":["x")";
  for (int i = 1; i < 2048; ++i) prompts += R"(,"x")";
  EXPECT_EQ(verdict(text(prompts + "]")), "ok");
  EXPECT_EQ(verdict(text(prompts + R"(],"n":2)")), "400 n");
  EXPECT_EQ(verdict(text(prompts + R"(,"x"])")), "400 prompt");
}

TEST(TextRequest, TooManyIdsSayContextLength) {
  std::string ids = "[1";
  for (int i = 1; i < 65; ++i) ids += ",1";
  const auto result = text(R"("prompt":)" + ids + "]");
  ASSERT_EQ(verdict(result), "400 prompt");
  EXPECT_EQ(std::get<ApiError>(result).code, "context_length_exceeded");
}

TEST(TextRequest, WithoutTokenizerOnlyIds) {
  ModelInfo bare = model();
  bare.has_tokenizer = false;
  EXPECT_EQ(verdict(parse_text_completion(*parse_json(R"({"prompt":"x"})"), bare)), "400 prompt");
  EXPECT_EQ(verdict(parse_text_completion(*parse_json(R"({"prompt":[1],"stop":"x"})"), bare)), "400 stop");
  EXPECT_EQ(verdict(parse_text_completion(*parse_json(R"({"prompt":[1]})"), bare)), "ok");
}

TEST(ChatRequest, ToolsAndFormatsPassWhereAnEngineHasThem) {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f","parameters":{}}}])";
  const std::string schema =
      R"("response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{}}})";
  const auto chat_of = [](const std::string& fields, EngineFeatures beyond, const char* more = "") {
    ModelInfo info = model();
    info.beyond = beyond;
    return parse_chat_completion(*parse_json(R"({"messages":[{"role":"user","content":"Hi"})" +
                                             std::string(more) + "]," + fields + "}"),
                                 info);
  };
  EXPECT_EQ(verdict(chat_of(tools, 0)), "400 tools");
  EXPECT_EQ(verdict(chat_of(tools, engine_feature::kJsonSchema)), "400 tools");
  const auto passed = chat_of(tools + R"(,"tool_choice":"required")", engine_feature::kTools);
  ASSERT_EQ(verdict(passed), "ok");
  EXPECT_EQ((*std::get<0>(passed).completion.tools)[0]["function"]["name"], "f");
  EXPECT_EQ(*std::get<0>(passed).completion.tool_choice, "required");
  EXPECT_EQ(verdict(chat_of(tools + R"(,"tool_choice":5)", engine_feature::kTools)), "400 tool_choice");
  EXPECT_EQ(verdict(chat_of(R"("tool_choice":"required")", engine_feature::kTools)), "400 tool_choice");
  EXPECT_EQ(verdict(chat_of(R"("tools":[{"type":"magic"}])", engine_feature::kTools)), "400 tools");
  EXPECT_EQ(verdict(chat_of(R"("tools":[7])", engine_feature::kTools)), "400 tools");
  const char* called = R"(,{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},
                          {"role":"tool","tool_call_id":"1","content":"x"})";
  EXPECT_EQ(verdict(chat_of(tools, engine_feature::kTools, called)), "ok");
  EXPECT_EQ(verdict(chat_of(schema, 0)), "400 response_format");
  EXPECT_EQ(verdict(chat_of(schema, engine_feature::kJsonSchema)), "ok");
  EXPECT_EQ(verdict(chat_of(R"("response_format":{"type":"json_object"})", engine_feature::kJsonSchema)),
            "400 response_format");
  EXPECT_EQ(verdict(chat_of(R"("response_format":{"type":"json_schema"})", engine_feature::kJsonSchema)),
            "400 response_format");
  EXPECT_EQ(verdict(chat_of(R"("response_format":{"type":"text"})", 0)), "ok");
}

TEST(Body, MustBeAnObject) {
  for (const char* json : {"[]", "5", "\"x\"", "null"}) {
    EXPECT_EQ(verdict(parse_chat_completion(*parse_json(json), model())), "400 ") << json;
    EXPECT_EQ(verdict(parse_text_completion(*parse_json(json), model())), "400 ") << json;
    EXPECT_EQ(requested_model(*parse_json(json)).index(), 1u) << json;
  }
  EXPECT_EQ(requested_model(*parse_json(R"({"model":5})")).index(), 1u);
  EXPECT_EQ(std::get<0>(requested_model(*parse_json(R"({"model":null})"))), std::nullopt);
}

}  // namespace
}  // namespace tessera::api
