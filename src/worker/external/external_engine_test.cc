// ExternalEngine against a server that does what engines do on bad days.
#include "worker/external/external_engine.h"

#include <gmock/gmock.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "net/net_test_util.h"
#include "net/sse.h"

namespace tessera::worker::external {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

std::string chunk(const char* text, const char* finish = nullptr) {
  return net::sse_event(dump_json(Json{{"choices",
                                        {{{"index", 0},
                                          {"delta", {{"content", text}}},
                                          {"finish_reason", finish == nullptr ? Json() : Json(finish)}}}}}));
}
std::string usage(int completion) {
  return net::sse_event(dump_json(Json{
      {"choices", Json::array()}, {"usage", {{"prompt_tokens", 3}, {"completion_tokens", completion}}}}));
}

// Speaks enough of the format to be attached to; what it does to a stream is named by the message's content.
class FakeEngine {
 public:
  FakeEngine()
      : server_([this](net::HttpRequest request, std::shared_ptr<net::ResponseWriter> writer) {
          handle(std::move(request), std::move(writer));
        }) {}
  ~FakeEngine() {
    for (std::thread& thread : threads_) thread.join();
  }
  std::string url() const { return server_.url(""); }

  std::atomic<bool> healthy{true};
  std::atomic<bool> lacks_n{false};
  std::atomic<bool> first_token_read{false};
  std::atomic<int> gone{0};    // clients that left in the middle
  std::atomic<int> served{0};  // streams that were asked for

 private:
  static void send(const std::shared_ptr<net::ResponseWriter>& writer, int status, std::string body) {
    net::HttpResponse response;
    response.status = status;
    response.body = std::move(body);
    writer->send(std::move(response));
  }
  void handle(net::HttpRequest request, std::shared_ptr<net::ResponseWriter> writer) {
    if (request.path == "/health") return send(writer, healthy ? 200 : 503, "");
    if (request.path == "/v1/models")
      return send(writer, 200, R"({"object":"list","data":[{"id":"fake","max_model_len":512}]})");
    if (request.path == "/version") return send(writer, 200, R"({"version":"9.9"})");
    if (request.path == "/metrics")
      return send(writer, 200,
                  "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.5\n");
    const Json body = *parse_json(request.body);
    if (!body.value("stream", false)) return probed(request, body, writer);
    ++served;
    std::lock_guard lock(mutex_);
    threads_.emplace_back(
        [this, what = body["messages"][0]["content"].get<std::string>(), writer] { stream(what, writer); });
  }
  void probed(const net::HttpRequest& request, const Json& body,
              const std::shared_ptr<net::ResponseWriter>& writer) {
    if (request.path == "/v1/completions")
      return body["prompt"].is_array() ? send(writer, 400, R"({"error":{"message":"text only"}})")
                                       : send(writer, 200, R"({"choices":[{"index":0,"text":"x"}]})");
    if (lacks_n && body.contains("n"))
      return send(writer, 400, R"({"error":{"message":"n is not supported"}})");
    Json choice = {
        {"index", 0}, {"message", {{"role", "assistant"}, {"content", "Hello"}}}, {"finish_reason", "stop"}};
    if (body.contains("response_format") && body["response_format"]["type"] == "json_schema")
      choice["message"]["content"] = R"({"word":"tessera-probe"})";
    // It says yes to tools and json_object, and does without them.
    Json choices = Json::array({choice});
    if (body.contains("n")) choices.push_back(choice);
    send(writer, 200, dump_json(Json{{"choices", choices}}));
  }
  void stream(const std::string& what, const std::shared_ptr<net::ResponseWriter>& writer) {
    if (what == "500") return send(writer, 500, R"({"error":{"message":"CUDA error"}})");
    if (what == "400") return send(writer, 400, R"({"error":{"message":"too long","param":"messages"}})");
    if (what == "hang") return wait_for_client(writer);
    writer->begin_stream(200, "text/event-stream");
    if (what == "ping") {  // alive, but no token comes
      while (!writer->client_gone()) {
        writer->write(": ping\n\n");
        std::this_thread::sleep_for(10ms);
      }
      ++gone;
      return;
    }
    writer->write(chunk("one "));
    if (what == "silent") return wait_for_client(writer);
    // A connection that breaks may take with it what was not read yet.
    while ((what == "drop" || what == "half") && !first_token_read) std::this_thread::sleep_for(1ms);
    if (what == "drop") return;  // the writer is dropped: the connection breaks
    if (what == "half") {
      writer->write("data: {\"choices\":[{\"index\":0,\"del");
      return;
    }
    if (what == "garbage") {
      writer->write("data: <html>\n\n");
      return wait_for_client(writer);
    }
    if (what == "mid-500") {
      writer->write(net::sse_event(R"({"error":{"message":"out of memory","code":500}})"));
      writer->end_stream();
      return;
    }
    if (what == "slow") std::this_thread::sleep_for(50ms);
    // Bytes come cut anywhere.
    const std::string rest = chunk("two", "stop") + usage(2) + net::sse_event("[DONE]");
    for (const char c : rest) writer->write(std::string(1, c));
    writer->end_stream();
  }
  void wait_for_client(const std::shared_ptr<net::ResponseWriter>& writer) {
    while (!writer->client_gone()) std::this_thread::sleep_for(5ms);
    ++gone;
  }

  std::mutex mutex_;
  std::vector<std::thread> threads_;
  net::TestServer server_;
};

struct Heard {
  std::string text;
  std::optional<EngineEnd> end;
};

class ExternalEngineTest : public ::testing::Test {
 protected:
  void attach(ExternalEngineOptions options = {}) {
    options.profile = find_profile("vllm");
    options.address.base = fake_.url();
    options.watch = 20ms;
    engine_ = std::make_unique<ExternalEngine>(
        options, [this](const EngineMessage& message) { return hear(message); }, [this] { ++changes_; });
    ASSERT_TRUE(eventually([&] { return engine_->report().state == EngineState::kReady; }))
        << engine_->report().error;
  }
  template <typename F>
  static bool eventually(F condition) {
    for (int i = 0; i < 1500; ++i, std::this_thread::sleep_for(20ms))
      if (condition()) return true;
    return false;
  }
  bool hear(const EngineMessage& message) {
    std::lock_guard lock(mutex_);
    if (const auto* delta = std::get_if<EngineDelta>(&message)) heard_[delta->id].text += delta->text;
    if (const auto* end = std::get_if<EngineEnd>(&message)) heard_[end->id].end = *end;
    return listening_;
  }
  uint64_t ask(const std::string& what) {
    EngineRequest request;
    request.id = ++last_id_;
    request.model = "fake";
    request.chat = true;
    request.messages = dump_json(Json::array({{{"role", "user"}, {"content", what}}}));
    request.max_tokens = 16;
    engine_->submit(request);
    return request.id;
  }
  bool has_text(uint64_t id) {
    std::lock_guard lock(mutex_);
    return !heard_[id].text.empty();
  }
  Heard answer(uint64_t id) {
    EXPECT_TRUE(eventually([&] {
      std::lock_guard lock(mutex_);
      return heard_[id].end.has_value();
    }));
    std::lock_guard lock(mutex_);
    Heard heard = heard_[id];
    if (!heard.end) heard.end.emplace();
    return heard;
  }

  FakeEngine fake_;
  std::mutex mutex_;
  std::map<uint64_t, Heard> heard_;
  std::atomic<int> changes_{0};
  std::atomic<bool> listening_{true};
  uint64_t last_id_ = 0;
  std::unique_ptr<ExternalEngine> engine_;
};

TEST_F(ExternalEngineTest, FindsOutWhatItServesAndCanDo) {
  using namespace engine_feature;  // NOLINT: the bits
  fake_.lacks_n = true;
  attach();
  const EngineReport report = engine_->report();
  EXPECT_EQ(report.version, "9.9");
  EXPECT_EQ(report.models, (std::vector<EngineModel>{{"fake", 512}}));
  EXPECT_EQ(report.features & kProbed, kChat | kText | kJsonSchema);
  EXPECT_NE(report.features & kTopK, 0u) << "from its documentation";
  ASSERT_TRUE(eventually([&] { return engine_->report().running == 1; }));
  EXPECT_EQ(engine_->report().kv_use, 0.5);
  EXPECT_GT(changes_, 0);
}

TEST_F(ExternalEngineTest, StreamsWholeAnswersWithTheEnginesOwnCount) {
  attach();
  for (const char* what : {"ok", "slow"}) {
    const Heard heard = answer(ask(what));
    EXPECT_EQ(heard.end->status, 0) << heard.end->message;
    EXPECT_EQ(heard.text, "one two");
    EXPECT_EQ(heard.end->prompt_tokens, 3);
    EXPECT_EQ(heard.end->completion_tokens, 2);
  }
  EXPECT_EQ(engine_->report().answered, 2);
  EXPECT_EQ(engine_->report().miscounted, 0);
  EXPECT_EQ(engine_->report().held, 0);
}

TEST_F(ExternalEngineTest, EveryFaultOfTheEngineEndsItsStreamWithAClearError) {
  attach();
  const auto fails = [&](const char* what, const char* why, const char* text) {
    const uint64_t id = ask(what);
    if (*text != 0) {
      EXPECT_TRUE(eventually([&] { return has_text(id); })) << what;
    }
    fake_.first_token_read = true;
    const Heard heard = answer(id);
    fake_.first_token_read = false;
    EXPECT_EQ(heard.end->status, 502) << what;
    EXPECT_TRUE(heard.end->engine_fault) << what;
    EXPECT_EQ(heard.text, text) << what;
    EXPECT_THAT(heard.end->message, HasSubstr("vLLM")) << what;
    EXPECT_THAT(heard.end->message, HasSubstr(why)) << what;
  };
  fails("500", "CUDA error", "");
  fails("drop", "broke off", "one ");
  fails("half", "broke off", "one ");
  fails("garbage", "no JSON object", "one ");
  fails("mid-500", "out of memory", "one ");
  EXPECT_EQ(engine_->report().failed, 5);
  const Heard refused = answer(ask("400"));
  EXPECT_EQ(refused.end->status, 400);
  EXPECT_FALSE(refused.end->engine_fault);
  EXPECT_EQ(refused.end->param, "messages");
  EXPECT_EQ(answer(ask("ok")).end->status, 0) << "and the next one is answered";
}

TEST_F(ExternalEngineTest, ACancelReachesTheEngineAtOnce) {
  attach();
  const uint64_t silent = ask("silent"), hang = ask("hang");
  ASSERT_TRUE(eventually([&] { return has_text(silent) && fake_.served == 2; }));
  engine_->cancel(silent);
  engine_->cancel(hang);
  EXPECT_EQ(answer(silent).end->status, 499);
  EXPECT_EQ(answer(hang).end->status, 499);
  EXPECT_TRUE(eventually([&] { return fake_.gone == 2; }));
  EXPECT_EQ(engine_->report().failed, 0);
}

TEST_F(ExternalEngineTest, WhatNobodyReadsIsCancelled) {
  attach();
  listening_ = false;
  ask("silent");
  EXPECT_TRUE(eventually([&] { return fake_.gone == 1; }));
}

TEST_F(ExternalEngineTest, DeadlinesHoldForTheFirstTokenAndBetweenTokens) {
  ExternalEngineOptions options;
  options.first_token = 150ms;
  options.silence = 100ms;
  attach(options);
  const uint64_t hang = ask("hang"), ping = ask("ping"), silent = ask("silent");
  EXPECT_EQ(answer(hang).end->status, 504);
  EXPECT_THAT(answer(hang).end->message, HasSubstr("no token within"));
  EXPECT_EQ(answer(ping).end->status, 504) << "bytes are no tokens";
  EXPECT_EQ(answer(silent).end->status, 504);
  EXPECT_THAT(answer(silent).end->message, HasSubstr("went silent"));
  EXPECT_TRUE(answer(silent).end->engine_fault);
  EXPECT_TRUE(eventually([&] { return fake_.gone == 3; }));
}

TEST_F(ExternalEngineTest, ADeadEngineIsReportedAndFoundAgain) {
  attach();
  fake_.healthy = false;
  ASSERT_TRUE(eventually([&] { return engine_->report().state == EngineState::kDown; }));
  EXPECT_THAT(engine_->report().error, HasSubstr("503"));
  const Heard heard = answer(ask("ok"));
  EXPECT_EQ(heard.end->status, 503);
  EXPECT_FALSE(heard.end->engine_fault);
  fake_.healthy = true;
  ASSERT_TRUE(eventually([&] { return engine_->report().state == EngineState::kReady; }));
  EXPECT_EQ(answer(ask("ok")).end->status, 0);
}

TEST_F(ExternalEngineTest, DrainingItEndsWhatItHoldsAndTakesNothingNew) {
  attach();
  const uint64_t held = ask("silent");
  ASSERT_TRUE(eventually([&] { return has_text(held); }));
  engine_->drain();
  EXPECT_EQ(answer(ask("ok")).end->status, 503);
  EXPECT_EQ(engine_->report().held, 1);
  const int before = changes_;
  engine_->cancel(held);
  EXPECT_TRUE(eventually([&] { return engine_->report().held == 0 && changes_ > before; }));
}

TEST_F(ExternalEngineTest, HoldsNoMoreThanItMay) {
  ExternalEngineOptions options;
  options.max_streams = 2;
  attach(options);
  const uint64_t a = ask("hang"), b = ask("hang");
  const Heard third = answer(ask("ok"));
  EXPECT_EQ(third.end->status, 503);
  EXPECT_THAT(third.end->message, HasSubstr("holds 2 requests"));
  engine_->cancel(a);
  engine_->cancel(b);
  answer(a);
  answer(b);
  EXPECT_EQ(answer(ask("ok")).end->status, 0);
}

TEST_F(ExternalEngineTest, AnUnknownModelIsNamed) {
  ExternalEngineOptions options;
  options.profile = find_profile("vllm");
  options.address.base = fake_.url();
  options.watch = 20ms;
  options.model = "other";
  engine_ = std::make_unique<ExternalEngine>(
      options, [](const EngineMessage&) { return true; }, [] {});
  ASSERT_TRUE(eventually([&] { return engine_->report().state == EngineState::kDown; }));
  EXPECT_THAT(engine_->report().error, HasSubstr("serves no model named other"));
}

}  // namespace
}  // namespace tessera::worker::external
