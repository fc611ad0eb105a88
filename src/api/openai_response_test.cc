#include "api/openai_response.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace tessera::api {
namespace {

AnswerHead head(bool chat) {
  AnswerHead head;
  head.id = "id";
  head.created = 7;
  head.model = "m";
  head.chat = chat;
  head.start.system_fingerprint = "fp";
  return head;
}

TokenScore score(TokenId id, std::string text, float logprob) {
  TokenScore score;
  score.id = id;
  score.text = text;
  score.bytes = std::move(text);
  score.logprob = logprob;
  return score;
}

Delta text_delta(int choice, std::string text, FinishReason finish = FinishReason::kNone) {
  Delta delta;
  delta.choice = choice;
  delta.text = std::move(text);
  delta.finish = finish;
  return delta;
}

// The JSON of each event of a stream; "[DONE]" stays a string.
std::vector<Json> events(const std::string& stream) {
  std::vector<Json> out;
  size_t at = 0;
  while (at < stream.size()) {
    const size_t end = stream.find("\n\n", at);
    EXPECT_EQ(stream.substr(at, 6), "data: ");
    const std::string data = stream.substr(at + 6, end - at - 6);
    out.push_back(data == "[DONE]" ? Json(data) : *parse_json(data));
    at = end + 2;
  }
  return out;
}

TEST(ErrorBody, IsOpenAis) {
  EXPECT_EQ(error_body(invalid_request("no", "n")),
            R"({"error":{"message":"no","type":"invalid_request_error","param":"n","code":null}})");
  EXPECT_EQ(model_not_found("x").status, 404);
  EXPECT_EQ(model_not_found("x").code, "model_not_found");
}

TEST(ErrorTable, CoversEveryCode) {
  const std::pair<Code, int> cases[] = {{Code::kInvalidArgument, 400},   {Code::kUnsupported, 400},
                                        {Code::kPermissionDenied, 403},  {Code::kNotFound, 404},
                                        {Code::kResourceExhausted, 429}, {Code::kUnavailable, 503},
                                        {Code::kDeadlineExceeded, 503},  {Code::kCancelled, 499},
                                        {Code::kCorrupt, 500},           {Code::kIo, 500},
                                        {Code::kInternal, 500}};
  for (const auto& [code, status] : cases)
    EXPECT_EQ(error_from_status(Status(code, "x")).status, status) << code_name(code);
  const net::HttpResponse busy = error_response(error_from_status(resource_exhausted("full")));
  ASSERT_EQ(busy.headers.size(), 1u);
  EXPECT_EQ(busy.headers[0].first, "Retry-After");
}

TEST(ChatBody, HasWhatClientsRead) {
  CollectedChoice choice;
  choice.append(text_delta(0, "Hel"));
  choice.append(text_delta(0, "lo", FinishReason::kLength));
  choice.reasoning = "hm";
  const Json body = *parse_json(completion_body(head(true), {choice}, 1, false, {3, 2, 1}));
  EXPECT_EQ(body, Json::parse(R"({"id":"id","object":"chat.completion","created":7,"model":"m",
    "system_fingerprint":"fp","choices":[{"index":0,"message":{"role":"assistant","content":"Hello",
    "refusal":null,"reasoning_content":"hm"},"logprobs":null,"finish_reason":"length"}],
    "usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,
    "prompt_tokens_details":{"cached_tokens":1}}})"));
}

TEST(TextBody, CarriesIdsAndTheLossOfExactness) {
  AnswerHead answer = head(false);
  answer.return_token_ids = true;
  answer.start.prompt_token_ids = {{1, 2}, {3}};
  answer.start.not_token_exact = "external engine";
  CollectedChoice choice;
  choice.text = "x";
  choice.token_ids = {9};
  choice.finish = FinishReason::kStop;
  const Json body = *parse_json(completion_body(answer, {choice, choice, choice, choice}, 2, false, {}));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["choices"][1]["prompt_token_ids"], Json({1, 2}));
  EXPECT_EQ(body["choices"][2]["prompt_token_ids"], Json({3}));
  EXPECT_EQ(body["choices"][3]["token_ids"], Json({9}));
  EXPECT_EQ(body["choices"][3]["index"], 3);
  EXPECT_EQ(body["tessera"], Json::parse(R"({"token_exact":false,"reason":"external engine"})"));
}

TEST(ChatLogprobs, GiveBytesAndAlternatives) {
  TokenScore chosen = score(5, "\xEF\xBF\xBD", -0.5f);
  chosen.bytes = "\xE2\x82";
  chosen.top = {score(6, "a", -0.25f), chosen};
  chosen.top[0].logprob = -std::numeric_limits<float>::infinity();
  const Json json = *parse_json(dump_json(chat_logprobs({chosen})));
  EXPECT_EQ(json["content"][0]["bytes"], Json({0xE2, 0x82}));
  EXPECT_EQ(json["content"][0]["logprob"], -0.5);
  EXPECT_EQ(json["content"][0]["top_logprobs"][0]["token"], "a");
  EXPECT_EQ(json["content"][0]["top_logprobs"][0]["logprob"], -9999.0);
}

TEST(TextLogprobs, CountCharactersAndStartWithNull) {
  TokenScore first = score(1, "\xC3\xA9", 0);  // é: one character, two bytes
  first.scored = false;
  TokenScore second = score(2, " b", -1);
  second.top = {score(3, "c", -0.5f)};
  TokenScore part = score(4, "\xEF\xBF\xBD", -2);
  part.bytes = "\xE2";
  int64_t offset = 0;
  const Json json = *parse_json(dump_json(text_logprobs({first, second, part}, offset)));
  EXPECT_EQ(json["tokens"], Json({"\xC3\xA9", " b", "bytes:\\xe2"}));
  EXPECT_EQ(json["token_logprobs"], Json({nullptr, -1.0, -2.0}));
  EXPECT_EQ(json["top_logprobs"][0], nullptr);
  EXPECT_EQ(json["top_logprobs"][1], Json::parse(R"({"c":-0.5," b":-1.0})"));
  EXPECT_EQ(json["text_offset"], Json({0, 1, 3}));
  EXPECT_EQ(offset, 4);
}

TEST(ToolCalls, ArePassedOnInAStreamAndPutTogetherInABody) {
  const auto part = [](const char* json) {
    Delta delta;
    delta.tool_calls = std::make_shared<const OrderedJson>(*parse_ordered_json(json));
    return delta;
  };
  std::vector<Delta> deltas = {
      part(R"([{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\""}}])"),
      part(R"([{"index":0,"function":{"arguments":":1}"}},{"index":9,"id":"x"},{"index":"?"}])"), Delta{}};
  deltas[2].finish = FinishReason::kStop;
  AnswerHead head;
  head.chat = true;
  StreamWriter writer(head, 1, 1);
  std::string events;
  CollectedChoice collected;
  for (const Delta& delta : deltas) {
    events += writer.delta(delta);
    collected.append(delta);
  }
  EXPECT_NE(events.find(R"("tool_calls":[{"index":0,"id":"call_1")"), std::string::npos) << events;
  EXPECT_NE(events.find(R"("finish_reason":"tool_calls")"), std::string::npos) << events;
  const Json body = *parse_json(completion_body(head, {collected}, 1, false, {}));
  const Json& message = body["choices"][0]["message"];
  EXPECT_EQ(message["content"], nullptr);
  EXPECT_EQ(message["tool_calls"][0]["id"], "call_1");
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], R"({"a":1})");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "tool_calls");
}

TEST(ChatStream, SaysOnceWhenTokensStopBeingExact) {
  StreamWriter stream(head(true), 1, 1);
  for (const Json& event : events(stream.delta(text_delta(0, "Hi")))) EXPECT_FALSE(event.contains("tessera"));
  Delta empty = text_delta(0, "");
  empty.not_token_exact = "another class";
  EXPECT_EQ(stream.delta(empty), "") << "nothing to show yet";
  const auto noted = events(stream.delta(text_delta(0, " there")));
  ASSERT_EQ(noted.size(), 1u);
  EXPECT_EQ(noted[0]["tessera"], Json::parse(R"({"token_exact":false,"reason":"another class"})"));
  for (const Json& event : events(stream.delta(text_delta(0, "", FinishReason::kStop))))
    EXPECT_FALSE(event.contains("tessera"));
}

TEST(ChatStream, StartsWithTheRoleAndEndsWithUsage) {
  AnswerHead answer = head(true);
  answer.include_usage = true;
  answer.start.not_token_exact = "why";
  StreamWriter stream(answer, 2, 2);
  const auto first = events(stream.delta(text_delta(1, "Hi")));
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(first[0]["choices"][0]["index"], 1);
  EXPECT_EQ(first[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(first[0]["usage"], nullptr);
  EXPECT_TRUE(first[0].contains("tessera"));
  EXPECT_FALSE(first[1].contains("tessera"));
  EXPECT_EQ(first[1]["choices"][0]["delta"], Json::parse(R"({"content":"Hi"})"));
  EXPECT_EQ(first[1]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(stream.delta(text_delta(1, "")), "");
  EXPECT_EQ(events(stream.delta(text_delta(0, ""))).size(), 1u) << "the other choice has its own role chunk";
  const auto last = events(stream.delta(text_delta(1, "", FinishReason::kStop)));
  EXPECT_EQ(last.at(0)["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(last[0]["choices"][0]["delta"], Json::object());
  const auto done = events(stream.done({3, 2, 0}));
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(done[0]["choices"], Json::array());
  EXPECT_EQ(done[0]["usage"]["total_tokens"], 5);
  EXPECT_EQ(done[1], "[DONE]");
}

TEST(TextStream, KeepsOffsetsAndIdsAcrossChunks) {
  AnswerHead answer = head(false);
  answer.return_token_ids = true;
  answer.start.prompt_token_ids = {{1, 2}};
  StreamWriter stream(answer, 1, 1);
  Delta delta = text_delta(0, "");
  delta.token_ids = {5};
  delta.logprobs = {score(5, "ab", -1)};
  auto chunk = events(stream.delta(delta)).at(0);
  EXPECT_EQ(chunk["object"], "text_completion");
  EXPECT_EQ(chunk["choices"][0]["token_ids"], Json({5}));
  EXPECT_EQ(chunk["choices"][0]["prompt_token_ids"], Json({1, 2}));
  EXPECT_EQ(chunk["choices"][0]["logprobs"]["text_offset"], Json({0}));
  chunk = events(stream.delta(delta)).at(0);
  EXPECT_EQ(chunk["choices"][0]["logprobs"]["text_offset"], Json({2}));
  EXPECT_FALSE(chunk["choices"][0].contains("prompt_token_ids"));
  EXPECT_FALSE(chunk.contains("usage"));
  EXPECT_EQ(events(stream.done({})).size(), 1u);
}

}  // namespace
}  // namespace tessera::api
