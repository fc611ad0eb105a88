#include "gateway/engine_hub.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "api/service.h"
#include "api/test_fakes.h"
#include "gateway/engine_request.h"

namespace tessera::gateway {
namespace {

using ::testing::HasSubstr;
using namespace engine_feature;  // NOLINT: the bits

class RecordingSink final : public api::CompletionSink {
 public:
  void on_start(const Start& s) override {
    ++starts;
    start = s;
  }
  bool on_delta(const api::Delta& delta) override {
    text += delta.text;
    last = delta;
    return reading;
  }
  void on_done(const api::Usage& u) override { usage = u; }
  void on_error(const api::ApiError& e) override {
    ++errors;
    error = e;
  }
  int starts = 0, errors = 0;
  bool reading = true;
  Start start;
  std::string text;
  api::Delta last;
  std::optional<api::Usage> usage;
  api::ApiError error;
};

class EngineHubTest : public ::testing::Test {
 protected:
  EngineHubTest() : hub_(models_, metrics_, clock_) {
    hub_.connect([this](const std::string& worker, const EngineMessage& message) {
      if (away_.count(worker) > 0) return false;
      sent_.emplace_back(worker, message);
      return true;
    });
  }
  void report(const std::string& worker, EngineFeatures features = kChat | kText, bool draining = false,
              EngineState state = EngineState::kReady) {
    EngineReport report;
    report.engine = "vllm";
    report.version = "1.0";
    report.state = state;
    report.models = {{"m", 512}};
    report.features = features;
    hub_.engine_reported(worker, report, draining);
    hub_.settle();
  }
  std::shared_ptr<RecordingSink> ask(EngineFeatures needs = kChat, const std::string& text = "Hi") {
    api::CompletionRequest request;
    request.model = "m";
    request.chat = true;
    request.messages =
        std::make_shared<OrderedJson>(OrderedJson::array({{{"role", "user"}, {"content", text}}}));
    if ((needs & kLogprobs) != 0) request.sampling.top_logprobs = 0;
    auto sink = std::make_shared<RecordingSink>();
    cancel_ = completer()->submit(request, sink);
    hub_.settle();
    return sink;
  }
  std::shared_ptr<api::Completer> completer() { return std::get<0>(models_.find(std::string("m"))); }
  std::vector<std::string> served() {
    std::vector<std::string> names;
    for (const auto& info : models_.list()) names.push_back(info.id);
    return names;
  }
  // The worker and the id that the latest request went out with.
  std::string worker() const { return sent_.back().first; }
  uint64_t id() const { return std::get<EngineRequest>(sent_.back().second).id; }
  void say(const std::string& worker, uint64_t id, const std::string& text,
           FinishReason finish = FinishReason::kNone) {
    EngineDelta delta;
    delta.id = id;
    delta.text = text;
    delta.tokens = 1;
    delta.finish = finish;
    hub_.receive(worker, delta);
    hub_.settle();
  }
  void end(const std::string& worker, uint64_t id, int status = 0, bool fault = false) {
    EngineEnd end;
    end.id = id;
    end.status = status;
    end.message = status == 0 ? "" : "it broke";
    end.engine_fault = fault;
    end.prompt_tokens = 3;
    end.completion_tokens = 2;
    hub_.receive(worker, end);
    hub_.settle();
  }
  // The hub's thread writes it, the test reads it between settle() and the next call.
  std::vector<std::pair<std::string, EngineMessage>> sent_;
  std::set<std::string> away_;
  api::ModelSet models_;
  obs::Metrics metrics_;
  SystemClock clock_;
  std::function<void()> cancel_;
  EngineHub hub_;
};

TEST_F(EngineHubTest, AModelIsServedAsLongAsAnEngineBelongsToTheCluster) {
  EXPECT_TRUE(served().empty());
  EXPECT_FALSE(hub_.any_ready());
  report("a");
  EXPECT_EQ(served(), std::vector<std::string>{"m"});
  EXPECT_TRUE(hub_.any_ready());
  EXPECT_EQ(completer()->info().context_length, 512);
  hub_.engine_lost("a", unavailable("its connection ended"), false);
  hub_.settle();
  EXPECT_EQ(served().size(), 1u) << "it may come back";
  const auto sink = ask();
  EXPECT_EQ(sink->error.status, 503);
  EXPECT_THAT(sink->error.message, HasSubstr("not connected"));
  hub_.engine_lost("a", unavailable("drained"), true);
  hub_.settle();
  EXPECT_TRUE(served().empty());
}

TEST_F(EngineHubTest, TextGoesThroughAndSaysThatItIsNotExact) {
  report("a");
  const auto sink = ask();
  const auto request = std::get<EngineRequest>(sent_.back().second);
  EXPECT_EQ(request.model, "m");
  EXPECT_THAT(request.messages, HasSubstr("Hi"));
  EXPECT_EQ(sink->starts, 0) << "nothing is promised before the first token";
  say("b", id(), "forged");  // another worker's word counts for nothing
  say("a", id(), "Hel");
  say("a", id(), "lo", FinishReason::kStop);
  EXPECT_EQ(sink->text, "Hello");
  EXPECT_THAT(sink->start.not_token_exact, HasSubstr("vllm 1.0 on worker a"));
  EXPECT_EQ(sink->last.unnamed_tokens, 1);
  end("a", id());
  ASSERT_TRUE(sink->usage.has_value());
  EXPECT_EQ(sink->usage->completion_tokens, 2);
  EXPECT_EQ(hub_.view()[0].in_flight, 0);
  say("a", id(), "late");
  EXPECT_EQ(sink->text, "Hello");
}

TEST_F(EngineHubTest, BeforeTheFirstTokenAnotherEngineIsTriedAndNoneTwice) {
  report("a");
  report("b");
  const auto sink = ask();
  const std::string first = worker();
  end(first, id(), 502, true);
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_NE(worker(), first);
  EXPECT_EQ(sink->errors, 0);
  say(worker(), id(), "Hi");
  end(worker(), id(), 502, true);
  EXPECT_EQ(sent_.size(), 2u) << "a token was told: no other attempt";
  EXPECT_EQ(sink->errors, 1);
  EXPECT_EQ(sink->error.status, 502);
  const auto second = ask();
  end(worker(), id(), 503, false);
  end(worker(), id(), 503, false);
  EXPECT_EQ(second->errors, 1);
  EXPECT_EQ(second->error.status, 503);
  EXPECT_THAT(second->error.message, HasSubstr("it broke"));
}

TEST_F(EngineHubTest, ARequestsOwnFaultIsNotTriedElsewhere) {
  report("a");
  report("b");
  const auto sink = ask();
  end(worker(), id(), 400);
  EXPECT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sink->error.status, 400);
}

TEST_F(EngineHubTest, ALostWorkerHurtsOnlyItsStreamsThatHadBegun) {
  report("a");
  const auto begun = ask();
  const uint64_t begun_id = id();
  say("a", begun_id, "Hi");
  const auto waiting = ask();
  report("b");
  hub_.engine_lost("a", unavailable("its connection ended"), false);
  hub_.settle();
  EXPECT_EQ(begun->errors, 1);
  EXPECT_EQ(begun->error.status, 503);
  EXPECT_EQ(begun->error.code, "engine_lost");
  EXPECT_THAT(begun->error.message, HasSubstr("worker a"));
  EXPECT_EQ(waiting->errors, 0);
  EXPECT_EQ(worker(), "b");
  say("b", id(), "Hi");
  end("b", id());
  EXPECT_TRUE(waiting->usage.has_value());
}

TEST_F(EngineHubTest, WhatAnEngineLacksGoesToOneThatHasItOrIsRefusedByName) {
  report("a");
  const auto refused = ask(kChat | kLogprobs);
  EXPECT_EQ(refused->error.status, 400);
  EXPECT_THAT(refused->error.message, HasSubstr("worker a (vllm 1.0): lacks logprobs"));
  report("b", kChat | kText | kLogprobs);
  ask(kChat | kLogprobs);
  EXPECT_EQ(worker(), "b");
  EXPECT_EQ(completer()->info().beyond, 0u);
  report("c", kChat | kTools);
  EXPECT_EQ(completer()->info().beyond, kTools);
}

TEST_F(EngineHubTest, NothingNewGoesToOneThatDrainsOrIsDown) {
  report("a");
  report("b");
  report("a", kChat, true);
  for (int i = 0; i < 4; ++i) {
    ask();
    EXPECT_EQ(worker(), "b");
  }
  report("b", kChat, false, EngineState::kDown);
  const auto sink = ask();
  EXPECT_EQ(sink->error.status, 503);
  EXPECT_THAT(sink->error.message, HasSubstr("it drains"));
}

TEST_F(EngineHubTest, ItsBreakerOpensAfterFaultsAndClosesWhenItPassesTheProbesAgain) {
  report("a");
  for (int i = 0; i < 3; ++i) {
    ask();
    end("a", id(), 502, true);
  }
  const size_t before = sent_.size();
  const auto sink = ask();
  EXPECT_EQ(sent_.size(), before);
  EXPECT_EQ(sink->error.status, 503);
  EXPECT_THAT(sink->error.message, HasSubstr("left alone"));
  EXPECT_EQ(hub_.view()[0].breaker, "open");
  report("a", kChat, false, EngineState::kDown);
  report("a");
  ask();
  EXPECT_EQ(sent_.size(), before + 1);
}

TEST_F(EngineHubTest, ACancelIsPassedOnAndAClientThatLeftIsOne) {
  report("a");
  const auto first = ask();
  cancel_();
  hub_.settle();
  EXPECT_TRUE(std::holds_alternative<EngineCancel>(sent_.back().second));
  EXPECT_EQ(hub_.view()[0].in_flight, 0);
  const auto second = ask();
  second->reading = false;
  const uint64_t request = id();
  say("a", request, "x");
  EXPECT_EQ(std::get<EngineCancel>(sent_.back().second).id, request);
}

TEST_F(EngineHubTest, OwnWorkersAndEnginesOfOneModelShareItsRequests) {
  auto own = std::make_shared<api::ScriptedCompleter>("m");
  hub_.add_own(own);
  auto alone = ask();
  ASSERT_NE(own->sink, nullptr) << "straight to our own while nobody else serves it";
  EXPECT_EQ(own->sink, alone);
  report("a", kChat | kText | kTools);
  EXPECT_EQ(completer()->info().vocab_size, 100) << "it is still our model";
  // Exact ones come first as long as nothing was measured; a refusal goes on to the engine.
  own->sink = nullptr;
  auto sink = ask();
  ASSERT_NE(own->sink, nullptr);
  own->sink->on_error(api::service_unavailable("no route"));
  hub_.settle();
  ASSERT_EQ(sent_.size(), 1u);
  say("a", id(), "Hi");
  end("a", id());
  EXPECT_TRUE(sink->usage.has_value());
  EXPECT_EQ(sink->starts, 1);
  // With our own busy the engine gets the next ones.
  std::vector<std::shared_ptr<RecordingSink>> busy;
  for (int i = 0; i < 12; ++i) busy.push_back(ask());
  EXPECT_GT(sent_.size(), 2u);
  hub_.remove_own("m");
  EXPECT_EQ(served().size(), 1u);
  EXPECT_EQ(completer()->info().vocab_size, 1 << 20);
}

TEST_F(EngineHubTest, PromptsThatBeginAlikeGoWhereTheFirstOneWent) {
  report("a");
  report("b");
  const std::string start(4096, 'x');
  ask(kChat, start + " one");
  const std::string first = worker();
  say(first, id(), "Hi");
  end(first, id());
  for (const char* more : {" two", " three", " four"}) {
    ask(kChat, start + more);
    EXPECT_EQ(worker(), first);
    say(worker(), id(), "Hi");
    end(worker(), id());
  }
}

TEST_F(EngineHubTest, AWorkersBadMessageEndsThatStreamOnly) {
  report("a");
  const auto sink = ask();
  EngineDelta delta;
  delta.id = id();
  delta.choice = 7;
  hub_.receive("a", delta);
  hub_.settle();
  EXPECT_EQ(sink->errors, 1);
  EXPECT_EQ(sink->error.status, 502);
  const auto next = ask();
  EngineDelta calls;
  calls.id = id();
  calls.tool_calls = "[7]";
  hub_.receive("a", calls);
  hub_.settle();
  EXPECT_EQ(next->error.status, 502);
}

TEST(EngineRequestOf, NamesWhatARequestNeeds) {
  api::CompletionRequest request;
  request.prompts = {api::Prompt(std::vector<TokenId>{1})};
  request.echo = true;
  request.sampling.min_tokens = INT32_MAX;
  request.sampling.top_k = INT32_MAX;
  request.max_tokens = INT32_MAX;
  request.cache_salt = "t";
  EXPECT_EQ(needs_of(request), kText | kTokenPrompts | kEcho | kMinTokens | kTopK | kCacheSalt);
  const auto message = to_engine(1, request, "m");
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->sampling.top_k, 0) << "no bound at all";
  request.prompts = {api::Prompt(std::string(size_t{16} << 20, 'x'))};
  EXPECT_EQ(to_engine(1, request, "m").status().code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace tessera::gateway
