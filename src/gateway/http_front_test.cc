#include "gateway/http_front.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "api/test_fakes.h"
#include "cluster/manual_executor.h"

namespace tessera::gateway {
namespace {

using std::chrono::milliseconds;

class ManualClock final : public Clock {
 public:
  explicit ManualClock(const cluster::ManualExecutor& executor) : executor_(executor) {}
  MonotonicTime now() const override { return executor_.now(); }
  int64_t unix_time_ms() const override { return 1'000'000; }

 private:
  const cluster::ManualExecutor& executor_;
};

class FrontTest : public testing::Test {
 protected:
  FrontTest() { make({}); }
  void make(FrontOptions options, std::vector<std::string> keys = {}) {
    authenticator_ = std::make_unique<StaticAuthenticator>(keys);
    front_ = std::make_unique<HttpFront>(std::move(options), *authenticator_, models_, metrics_, readiness_,
                                         executor_, clock_);
  }
  // The answer that has come when everything ready has run.
  api::RecordingWriter& call(const std::string& method, const std::string& path, std::string body = {},
                             net::Headers headers = {}) {
    net::HttpRequest request;
    request.method = method;
    request.target = request.path = path;
    request.body = std::move(body);
    request.headers = std::move(headers);
    request.id = "r";
    writer_ = std::make_shared<api::RecordingWriter>();
    front_->handle(std::move(request), writer_);
    executor_.run();
    return *writer_;
  }
  Json json() { return *parse_json(writer_->body); }

  cluster::ManualExecutor executor_;
  ManualClock clock_{executor_};
  obs::Metrics metrics_;
  obs::Health health_;
  std::vector<Readiness::Callback> probes_;
  Readiness readiness_{health_,
                       [this](Readiness::Callback callback) { probes_.push_back(std::move(callback)); },
                       executor_, clock_};
  api::ModelSet models_;
  std::shared_ptr<api::ScriptedCompleter> completer_ = std::make_shared<api::ScriptedCompleter>("org/m");
  std::shared_ptr<api::RecordingWriter> writer_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<HttpFront> front_;
};

TEST_F(FrontTest, RoutesAndMethods) {
  EXPECT_EQ(call("GET", "/nothing").status, 404);
  EXPECT_EQ(json()["error"]["type"], "invalid_request_error");
  EXPECT_EQ(call("GET", "/v1/completions").status, 405);
  EXPECT_EQ(writer_->header("Allow"), "POST");
  EXPECT_EQ(call("POST", "/health").status, 405);
  EXPECT_EQ(call("OPTIONS", "/v1/models").status, 405);
  EXPECT_EQ(call("GET", "/health").status, 200);
  EXPECT_EQ(call("HEAD", "/health").status, 200);
  EXPECT_EQ(call("GET", "/").status, 200);
  EXPECT_EQ(front_->active_requests(), 0);
}

TEST_F(FrontTest, ModelsHaveIdsWithSlashes) {
  EXPECT_EQ(call("POST", "/v1/completions", R"({"prompt":"x"})").status, 503) << "nothing is loaded";
  models_.add(completer_);
  EXPECT_EQ(call("GET", "/v1/models").status, 200);
  EXPECT_EQ(json()["data"][0]["id"], "org/m");
  EXPECT_EQ(json()["data"][0]["max_model_len"], 64);
  EXPECT_EQ(call("GET", "/v1/models/org/m").status, 200);
  EXPECT_EQ(json()["object"], "model");
  EXPECT_EQ(call("GET", "/v1/models/other").status, 404);
  EXPECT_EQ(json()["error"]["code"], "model_not_found");
  EXPECT_EQ(call("GET", "/v1/models/").status, 404);
}

TEST_F(FrontTest, KeysGuardAllButProbes) {
  make({}, {"secret", "other"});
  models_.add(completer_);
  EXPECT_EQ(call("GET", "/v1/models").status, 401);
  EXPECT_EQ(json()["error"]["code"], "invalid_api_key");
  EXPECT_EQ(writer_->header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(call("GET", "/nothing").status, 401) << "strangers learn no routes";
  EXPECT_EQ(call("GET", "/metrics").status, 401);
  EXPECT_EQ(call("GET", "/health").status, 200);
  EXPECT_EQ(call("GET", "/ready").status, 503);
  EXPECT_EQ(call("GET", "/v1/models", "", {{"authorization", "Bearer secret"}}).status, 200);
  EXPECT_EQ(call("GET", "/v1/models", "", {{"authorization", "bearer  other"}}).status, 200);
  for (const char* wrong : {"Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "secret"})
    EXPECT_EQ(call("GET", "/v1/models", "", {{"authorization", wrong}}).status, 401) << wrong;
}

TEST_F(FrontTest, CorsForAllowedOriginsOnly) {
  make({.cors_origins = {"https://a.example"}, .groups = {}}, {"k"});
  models_.add(completer_);
  const net::Headers preflight{{"origin", "https://a.example"},
                               {"access-control-request-method", "POST"},
                               {"access-control-request-headers", "authorization,x-stainless-os"}};
  EXPECT_EQ(call("OPTIONS", "/v1/completions", "", preflight).status, 204) << "a preflight carries no key";
  EXPECT_EQ(writer_->header("Access-Control-Allow-Origin"), "https://a.example");
  EXPECT_EQ(writer_->header("Access-Control-Allow-Headers"), "authorization,x-stainless-os");
  call("GET", "/v1/models", "", {{"origin", "https://a.example"}});
  EXPECT_EQ(writer_->status, 401);
  EXPECT_EQ(writer_->header("Access-Control-Allow-Origin"), "https://a.example") << "pages must see errors";
  call("GET", "/health", "", {{"origin", "https://b.example"}});
  EXPECT_EQ(writer_->header("Access-Control-Allow-Origin"), "");
  EXPECT_EQ(call("OPTIONS", "/v1/completions", "",
                 {{"origin", "https://b.example"}, {"access-control-request-method", "POST"}})
                .status,
            401);
  call("POST", "/v1/completions", R"({"prompt":"x","stream":true})",
       {{"origin", "https://a.example"}, {"authorization", "Bearer k"}});
  completer_->sink->on_start({});
  EXPECT_EQ(writer_->header("Access-Control-Allow-Origin"), "https://a.example");
  completer_->sink->on_done({});
}

TEST_F(FrontTest, ReadyNeedsHealthAndAToken) {
  EXPECT_EQ(call("GET", "/ready").status, 503) << "no part has joined";
  health_.set("model", false, "loading");
  EXPECT_EQ(call("GET", "/ready").status, 503);
  EXPECT_EQ(json()["error"]["code"], "not_ready");
  EXPECT_NE(json()["error"]["message"].get<std::string>().find("loading"), std::string::npos);
  EXPECT_TRUE(probes_.empty());

  health_.set("model", true);
  auto first = writer_;
  call("GET", "/ready");
  first = writer_;
  call("GET", "/ready");
  ASSERT_EQ(probes_.size(), 1u) << "one probe for all who ask";
  EXPECT_EQ(first->status, 0);
  probes_[0]({});
  executor_.run();
  EXPECT_EQ(first->status, 200);
  EXPECT_EQ(writer_->status, 200);
  EXPECT_EQ(call("GET", "/ready").status, 200) << "believed while fresh";
  EXPECT_EQ(probes_.size(), 1u);

  executor_.advance(milliseconds(2'001));
  call("GET", "/ready");
  ASSERT_EQ(probes_.size(), 2u);
  executor_.advance(milliseconds(10'001));
  EXPECT_EQ(writer_->status, 503) << "a probe that hangs is a failure";
  probes_[1]({});  // too late: of a round that is over
  executor_.run();
  call("GET", "/ready");
  EXPECT_EQ(probes_.size(), 3u) << "the late answer must not count";
  probes_[2](unavailable("no route"));
  executor_.run();
  EXPECT_EQ(writer_->status, 503);
  EXPECT_NE(writer_->body.find("no route"), std::string::npos);
}

TEST_F(FrontTest, DrainingRefusesWorkAndFinishesWhatRuns) {
  models_.add(completer_);
  call("POST", "/v1/completions", R"({"prompt":"x","stream":true})");
  auto running = writer_;
  auto sink = completer_->sink;
  sink->on_start({});
  front_->start_draining();
  EXPECT_EQ(front_->active_requests(), 1);
  EXPECT_EQ(call("POST", "/v1/completions", R"({"prompt":"x"})").status, 503);
  EXPECT_FALSE(writer_->header("Retry-After").empty());
  EXPECT_EQ(call("POST", "/tokenize", R"({"prompt":"x"})").status, 503);
  EXPECT_EQ(call("GET", "/ready").status, 503);
  EXPECT_EQ(call("GET", "/health").status, 200);
  sink->on_done({});
  EXPECT_TRUE(running->over);
  EXPECT_NE(running->body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(front_->active_requests(), 0);
}

TEST_F(FrontTest, TokenizeAndDetokenize) {
  models_.add(completer_);
  EXPECT_EQ(call("POST", "/tokenize", R"({"prompt":"hi","return_token_strs":true})").status, 200);
  EXPECT_EQ(json(), Json::parse(R"({"count":1,"max_model_len":64,"tokens":[1],"token_strs":["x"]})"));
  EXPECT_EQ(
      call("POST", "/tokenize", R"({"messages":[{"role":"user","content":"hi"}],"model":"org/m"})").status,
      200);
  EXPECT_EQ(json()["token_strs"], nullptr);
  EXPECT_EQ(call("POST", "/detokenize", R"({"tokens":[1,2]})").status, 200);
  EXPECT_EQ(json()["prompt"], "x");
  const std::pair<const char*, const char*> bad[] = {
      {"/tokenize", "{}"},
      {"/tokenize", "nonsense"},
      {"/tokenize", R"({"prompt":5})"},
      {"/tokenize", R"({"messages":[]})"},
      {"/tokenize", R"({"prompt":"x","add_special_tokens":1})"},
      {"/detokenize", "{}"},
      {"/detokenize", R"({"tokens":[100]})"},
      {"/detokenize", R"({"tokens":"1"})"}};
  for (const auto& [path, body] : bad) EXPECT_EQ(call("POST", path, body).status, 400) << body;
  EXPECT_EQ(call("POST", "/tokenize", R"({"prompt":"x","model":"other"})").status, 404);
}

TEST_F(FrontTest, TextsWaitingAreBounded) {
  models_.add(completer_);
  std::vector<std::shared_ptr<api::RecordingWriter>> writers;
  for (int i = 0; i < 65; ++i) {
    net::HttpRequest request;
    request.method = "POST";
    request.path = "/tokenize";
    request.body = R"({"prompt":"x"})";
    writers.push_back(std::make_shared<api::RecordingWriter>());
    front_->handle(std::move(request), writers.back());
  }
  EXPECT_EQ(writers[63]->status, 0);
  EXPECT_EQ(writers[64]->status, 429);
  executor_.run();
  EXPECT_EQ(writers[63]->status, 200);
}

TEST_F(FrontTest, MeasuresACompletion) {
  models_.add(completer_);
  call("POST", "/v1/completions", R"({"prompt":"x"})");
  auto& sink = *completer_->sink;
  sink.on_start({});
  api::Delta delta;
  delta.token_ids = {1};
  executor_.advance(milliseconds(100));
  sink.on_delta(delta);
  executor_.advance(milliseconds(50));
  delta.token_ids = {1, 2};
  sink.on_delta(delta);
  sink.on_done({});
  const std::string text = call("GET", "/metrics").body;
  for (const char* line : {R"(tessera_tokens_generated_total{model="org/m"} 3)",
                           R"(tessera_time_to_first_token_seconds_count{model="org/m"} 1)",
                           R"(tessera_time_to_first_token_seconds_sum{model="org/m"} 0.1)",
                           R"(tessera_inter_token_latency_seconds_count{model="org/m"} 2)",
                           R"(tessera_inter_token_latency_seconds_sum{model="org/m"} 0.05)",
                           R"(tessera_requests_total{route="/v1/completions",status="200"} 1)",
                           R"(tessera_inference_requests_total{model="org/m",status="200"} 1)",
                           R"(tessera_request_latency_seconds_count{route="/v1/completions"} 1)",
                           R"(tessera_inference_latency_seconds_count{model="org/m"} 1)"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  EXPECT_NE(text.find("tessera_requests_active 1"), std::string::npos) << "the scrape itself";
}

TEST_F(FrontTest, UnansweredRequestsAreCountedToo) {
  models_.add(completer_);
  call("POST", "/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(front_->active_requests(), 1);
  completer_->sink.reset();
  EXPECT_EQ(front_->active_requests(), 0);
}

// Everybody is the caller of the test's choice.
class FixedAuthenticator final : public Authenticator {
 public:
  void authenticate(const std::shared_ptr<const net::HttpRequest>&, Callback done) override {
    done(std::make_shared<const api::Caller>(caller));
  }
  api::Caller caller;
};

// One route for each role, and a tail.
class SomeRoutes final : public RouteGroup {
 public:
  std::vector<Route> routes() override {
    std::vector<Route> all;
    for (const auto& [name, access] : {std::pair{"client", Access::kClient},
                                       {"viewer", Access::kViewer},
                                       {"operator", Access::kOperator},
                                       {"admin", Access::kAdmin}})
      all.push_back({.method = "GET", .path = std::string("/for/") + name, .access = access, .run = reply()});
    all.push_back({.method = "DELETE", .path = "/thing/{id}/of/{name...}", .run = reply()});
    return all;
  }

 private:
  static std::function<void(const Call&)> reply() {
    return [](const Call& call) {
      net::HttpResponse response;
      for (const std::string& parameter : call.parameters) response.body += "[" + parameter + "]";
      call.answer(std::move(response));
    };
  }
};

TEST_F(FrontTest, RolesOpenWhatTheyShould) {
  SomeRoutes group;
  FixedAuthenticator authenticator;
  front_ = std::make_unique<HttpFront>(FrontOptions{{}, {&group}}, authenticator, models_, metrics_,
                                       readiness_, executor_, clock_);
  const std::vector<std::string> paths = {"/for/client", "/for/viewer", "/for/operator", "/for/admin"};
  for (size_t role = 0; role < paths.size(); ++role) {
    authenticator.caller.role = static_cast<api::Role>(role);
    for (size_t needed = 0; needed < paths.size(); ++needed)
      EXPECT_EQ(call("GET", paths[needed]).status, role >= needed ? 200 : 403) << role << " at " << needed;
  }
  EXPECT_EQ(call("DELETE", "/thing/a/of/b/c").body, "[a][b/c]");
  EXPECT_EQ(call("DELETE", "/thing/a/of/").status, 404);
  EXPECT_EQ(call("DELETE", "/thing//of/b").status, 404);
  EXPECT_EQ(call("GET", "/thing/a/of/b").status, 405);
}

TEST_F(FrontTest, KeysSeeTheirModelsOnly) {
  models_.add(completer_);
  auto second = std::make_shared<api::ScriptedCompleter>("second");
  models_.add(second);
  FixedAuthenticator authenticator;
  authenticator.caller.models = {"second"};
  authenticator.caller.tenant = "acme";
  front_ = std::make_unique<HttpFront>(FrontOptions{}, authenticator, models_, metrics_, readiness_,
                                       executor_, clock_);
  call("GET", "/v1/models");
  EXPECT_EQ(json()["data"].size(), 1u);
  EXPECT_EQ(json()["data"][0]["id"], "second");
  EXPECT_EQ(call("GET", "/v1/models/org/m").status, 403);
  EXPECT_EQ(call("POST", "/tokenize", R"({"model":"org/m","prompt":"x"})").status, 403);
  EXPECT_EQ(call("POST", "/v1/completions", R"({"model":"org/m","prompt":"x"})").status, 403);
  EXPECT_EQ(json()["error"]["code"], "model_not_allowed");
  EXPECT_EQ(json()["error"]["param"], "model");
  call("POST", "/v1/completions", R"({"model":"second","prompt":"x","cache_salt":"s"})");
  ASSERT_TRUE(second->sink);
  EXPECT_EQ(second->request.cache_salt, "acme/s") << "tenants share no cached prefixes";
  second->sink->on_done({});
  authenticator.caller.types = {"image_gen"};
  EXPECT_EQ(call("POST", "/v1/completions", R"({"model":"second","prompt":"x"})").status, 403);
  EXPECT_EQ(json()["error"]["code"], "type_not_allowed");
}

// The whole table: a route that somebody forgets to guard fails here.
TEST_F(FrontTest, EveryRouteButTheProbesNeedsAKey) {
  make({}, {"secret"});
  std::set<std::string> open;
  for (const Route& route : front_->routes()) {
    std::string path = route.path;
    for (size_t begin; (begin = path.find('{')) != std::string::npos;)
      path.replace(begin, path.find('}') - begin + 1, "x");
    if (call(route.method, path).status != 401) open.insert(route.path);
  }
  EXPECT_EQ(open, (std::set<std::string>{"/health", "/ready"}));
}

}  // namespace
}  // namespace tessera::gateway
