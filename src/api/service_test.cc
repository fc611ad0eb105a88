#include "api/service.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "api/test_fakes.h"

namespace tessera::api {
namespace {

struct RecordingObserver final : CompletionObserver {
  void on_model(const std::string& m) override { model = m; }
  void on_prompt(int count) override { prompt = count; }
  void on_tokens(int, int count) override { tokens += count; }
  void on_end(int s, const Usage&) override {
    EXPECT_EQ(status, 0) << "ended twice";
    status = s;
  }
  std::string model;
  int prompt = 0, tokens = 0, status = 0;
};

class ServiceTest : public testing::Test {
 protected:
  ServiceTest() { models_.add(completer_); }
  void post(const std::string& body, Endpoint endpoint = Endpoint::kCompletions) {
    net::HttpRequest request;
    request.body = body;
    request.id = "r1";
    service_.handle(endpoint, request, caller_, writer_, observer_);
  }
  Delta delta(int choice, std::string text, FinishReason finish = FinishReason::kNone) {
    Delta d;
    d.choice = choice;
    d.text = std::move(text);
    d.token_ids = {7};
    d.finish = finish;
    return d;
  }
  Json answer() { return *parse_json(writer_->body); }

  SystemClock clock_;
  const Caller caller_;
  ModelSet models_;
  CompletionService service_{models_, clock_};
  std::shared_ptr<ScriptedCompleter> completer_ = std::make_shared<ScriptedCompleter>();
  std::shared_ptr<RecordingWriter> writer_ = std::make_shared<RecordingWriter>();
  std::shared_ptr<RecordingObserver> observer_ = std::make_shared<RecordingObserver>();
};

TEST_F(ServiceTest, CollectsInterleavedChoices) {
  post(R"({"prompt":["a","b"],"n":1,"model":"m"})");
  auto& sink = *completer_->sink;
  sink.on_start({});
  EXPECT_TRUE(sink.on_delta(delta(1, "B")));
  EXPECT_TRUE(sink.on_delta(delta(0, "A")));
  EXPECT_TRUE(sink.on_delta(delta(1, "b", FinishReason::kStop)));
  EXPECT_TRUE(sink.on_delta(delta(0, "a", FinishReason::kLength)));
  EXPECT_EQ(writer_->status, 0);
  sink.on_done({2, 4, 0});
  EXPECT_EQ(writer_->status, 200);
  EXPECT_EQ(answer()["choices"][0]["text"], "Aa");
  EXPECT_EQ(answer()["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer()["choices"][1]["text"], "Bb");
  EXPECT_EQ(answer()["usage"]["total_tokens"], 6);
  EXPECT_EQ(answer()["id"], "cmpl-r1");
  EXPECT_EQ(observer_->model, "m");
  EXPECT_EQ(observer_->tokens, 4);
  EXPECT_EQ(observer_->status, 200);
}

TEST_F(ServiceTest, StreamsAndEndsWithDone) {
  post(R"({"messages":[{"role":"user","content":"x"}],"stream":true})", Endpoint::kChatCompletions);
  EXPECT_EQ(writer_->status, 0) << "no head before the completer has accepted";
  auto& sink = *completer_->sink;
  sink.on_start({});
  EXPECT_EQ(writer_->status, 200);
  EXPECT_EQ(writer_->type, "text/event-stream");
  sink.on_delta(delta(0, "Hi"));
  EXPECT_NE(writer_->body.find(R"("content":"Hi")"), std::string::npos);
  sink.on_delta(delta(0, "", FinishReason::kStop));
  sink.on_done({});
  EXPECT_TRUE(writer_->over);
  EXPECT_EQ(writer_->body.substr(writer_->body.size() - 14), "data: [DONE]\n\n");
}

TEST_F(ServiceTest, RefusalBeforeTheStreamHasItsStatus) {
  post(R"({"prompt":"x","stream":true})");
  completer_->sink->on_error(error_from_status(resource_exhausted("full")));
  EXPECT_EQ(writer_->status, 429);
  EXPECT_EQ(answer()["error"]["code"], "rate_limit_exceeded");
  EXPECT_EQ(observer_->status, 429);
}

TEST_F(ServiceTest, CutStreamEndsWithAnErrorEvent) {
  post(R"({"prompt":"x","stream":true})");
  completer_->sink->on_start({});
  completer_->sink->on_delta(delta(0, "a"));
  EXPECT_EQ(service_.cut_running(service_unavailable("stopping")), std::vector<std::string>{"r1"});
  EXPECT_TRUE(writer_->over);
  const std::string last = writer_->body.substr(writer_->body.rfind("data: "));
  EXPECT_NE(last.find(R"("message":"stopping")"), std::string::npos) << last;
  EXPECT_EQ(completer_->cancels, 1);
  EXPECT_EQ(observer_->status, 503);
  EXPECT_FALSE(completer_->sink->on_delta(delta(0, "b")));
  completer_->sink->on_done({});
  EXPECT_TRUE(service_.cut_running(service_unavailable("stopping")).empty());
}

TEST_F(ServiceTest, CutBeforeTheHeadIsAnAnswer) {
  post(R"({"prompt":"x"})");
  EXPECT_EQ(service_.cut_running(service_unavailable("stopping")).size(), 1u);
  EXPECT_EQ(writer_->status, 503);
  EXPECT_EQ(answer()["error"]["message"], "stopping");
  completer_->sink->on_start({});
  EXPECT_EQ(completer_->cancels, 1);
}

TEST_F(ServiceTest, ErrorInTheStreamIsItsLastEvent) {
  post(R"({"prompt":"x","stream":true})");
  completer_->sink->on_start({});
  completer_->sink->on_delta(delta(0, "a"));
  completer_->sink->on_error(error_from_status(unavailable("worker lost")));
  EXPECT_TRUE(writer_->over);
  EXPECT_EQ(writer_->body.find("[DONE]"), std::string::npos);
  const size_t last = writer_->body.rfind("data: ");
  const Json event = *parse_json(writer_->body.substr(last + 6));
  EXPECT_EQ(event["error"]["message"], "worker lost");
  EXPECT_EQ(observer_->status, 503);
}

TEST_F(ServiceTest, ClientGoneCancelsOnceAndSilences) {
  for (const char* body : {R"({"prompt":"x","stream":true})", R"({"prompt":"x"})"}) {
    writer_ = std::make_shared<RecordingWriter>();
    observer_ = std::make_shared<RecordingObserver>();
    completer_->cancels = 0;
    post(body);
    completer_->sink->on_start({});
    writer_->leave();
    EXPECT_EQ(completer_->cancels, 1) << body;
    EXPECT_FALSE(completer_->sink->on_delta(delta(0, "a")));
    completer_->sink->on_error(error_from_status(cancelled("cancelled")));
    writer_->leave();
    EXPECT_EQ(completer_->cancels, 1) << body;
    EXPECT_EQ(observer_->status, 499);
    EXPECT_TRUE(writer_->body.empty());
  }
}

TEST_F(ServiceTest, ClientGoneDuringSubmitStillCancels) {
  completer_->during_submit = [&](CompletionSink&) { writer_->leave(); };
  post(R"({"prompt":"x"})");
  EXPECT_EQ(completer_->cancels, 1);
}

TEST_F(ServiceTest, AnswerDuringSubmitKeepsNothing) {
  completer_->during_submit = [&](CompletionSink& sink) {
    sink.on_start({});
    sink.on_delta(delta(0, "a", FinishReason::kStop));
    sink.on_done({});
  };
  post(R"({"prompt":"x"})");
  EXPECT_EQ(writer_->status, 200);
  writer_->leave();
  EXPECT_EQ(completer_->cancels, 0);
  std::weak_ptr<CompletionSink> sink = completer_->sink;
  completer_->sink.reset();
  EXPECT_TRUE(sink.expired()) << "the service must not keep the request";
}

TEST_F(ServiceTest, RefusesBadBodiesAndUnknownModels) {
  const std::pair<const char*, int> cases[] = {{"", 400},
                                               {"{", 400},
                                               {"[]", 400},
                                               {"{\"prompt\":\"\xff\"}", 400},
                                               {R"({"prompt":1e400})", 400},
                                               {R"({"prompt":"x","model":"other"})", 404},
                                               {R"({"prompt":"x","model":7})", 400}};
  for (const auto& [body, status] : cases) {
    writer_ = std::make_shared<RecordingWriter>();
    observer_ = std::make_shared<RecordingObserver>();
    post(body);
    EXPECT_EQ(writer_->status, status) << body;
    EXPECT_EQ(observer_->status, status) << body;
    EXPECT_TRUE(answer().contains("error")) << body;
  }
  writer_ = std::make_shared<RecordingWriter>();
  observer_ = std::make_shared<RecordingObserver>();
  post(std::string(200, '['));
  EXPECT_EQ(writer_->status, 400);
}

TEST(ModelSet, FindsTheOnlyModelWithoutAName) {
  ModelSet models;
  EXPECT_EQ(std::get<ApiError>(models.find(std::nullopt)).status, 503);
  auto first = std::make_shared<ScriptedCompleter>("a");
  models.add(first);
  EXPECT_EQ(std::get<0>(models.find(std::nullopt)), first);
  models.add(std::make_shared<ScriptedCompleter>("b"));
  EXPECT_EQ(std::get<ApiError>(models.find(std::nullopt)).param, "model");
  EXPECT_EQ(std::get<0>(models.find("a")), first);
  models.add(std::make_shared<ScriptedCompleter>("a"));
  EXPECT_NE(std::get<0>(models.find("a")), first) << "a new completer replaces the old one";
  EXPECT_EQ(models.list().size(), 2u);
  models.remove("b");
  EXPECT_EQ(std::get<ApiError>(models.find("b")).code, "model_not_found");
}

}  // namespace
}  // namespace tessera::api
