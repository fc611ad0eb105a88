#include "gateway/job_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "api/test_fakes.h"
#include "gateway/webhook.h"
#include "store/sqlite_database.h"

namespace tessera::gateway {
namespace {

using namespace std::chrono_literals;
using control::Job;
using control::JobState;
using ::testing::HasSubstr;

// Answers what the test says, from the thread that submits.
class Answering final : public api::Completer {
 public:
  std::function<void(api::CompletionSink&)> answer = [](api::CompletionSink& sink) {
    sink.on_start({});
    api::Delta delta;
    delta.text = "hello";
    delta.finish = FinishReason::kStop;
    sink.on_delta(delta);
    sink.on_done({3, 1, 0});
  };
  std::atomic<int> asked = 0, cancelled = 0;

  api::ModelInfo info() const override {
    api::ModelInfo info;
    info.id = "m";
    info.context_length = 64;
    info.vocab_size = 100;
    return info;
  }
  std::function<void()> submit(api::CompletionRequest request,
                               std::shared_ptr<api::CompletionSink> sink) override {
    salt = request.cache_salt;
    ++asked;
    answer(*sink);
    return [this] { ++cancelled; };
  }
  Result<std::vector<TokenId>> tokenize(const std::string&, bool) const override {
    return std::vector<TokenId>{};
  }
  Result<std::vector<TokenId>> tokenize_chat(const OrderedJson&, const OrderedJson*,
                                             text::ChatEnding) const override {
    return std::vector<TokenId>{};
  }
  Result<std::string> detokenize(const std::vector<TokenId>&) const override { return std::string(); }
  std::string token_text(TokenId) const override { return ""; }
  std::string salt;
};

class JobServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    models_.add(completer_);
    start();
  }
  void start(int slots = 2) {
    JobServiceOptions options;
    options.owner = "g" + std::to_string(++starts_);
    options.slots = slots;
    options.poll = 10ms;
    options.lease = 300ms;
    options.webhook_hosts = {"hooks.example"};
    service_ = std::make_unique<JobService>(options, *jobs_, models_, metrics_, clock_);
  }
  static control::JobRequest request() {
    control::JobRequest r;
    r.tenant = "acme";
    r.type = "llm";
    r.params = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":4})";
    return r;
  }
  Job create(control::JobRequest r) {
    EXPECT_FALSE(service_->check(r, caller_).has_value());
    std::promise<Result<Job>> made;
    service_->create({*JobService::draw_id(), r}, [&](Result<Job> job) { made.set_value(std::move(job)); });
    return *made.get_future().get();
  }
  Job wait(const Job& job) {
    std::promise<std::optional<Job>> ended;
    service_->watch(job.id, 60s, [&](const std::optional<Job>& now) {
      if (now && !now->ended()) return true;
      ended.set_value(now);
      return false;
    });
    return ended.get_future().get().value_or(Job());
  }
  void until(const std::function<bool()>& condition) {
    for (int i = 0; i < 6000 && !condition(); ++i) std::this_thread::sleep_for(5ms);
    EXPECT_TRUE(condition());
  }

  SystemClock clock_;
  obs::Metrics metrics_;
  api::Caller caller_;
  std::unique_ptr<store::Database> database_ = std::move(*store::open_sqlite(":memory:"));
  std::unique_ptr<control::Jobs> jobs_ = std::move(*control::Jobs::open(*database_, clock_));
  std::shared_ptr<Answering> completer_ = std::make_shared<Answering>();
  api::ModelSet models_;
  std::unique_ptr<JobService> service_;
  int starts_ = 0;
};

TEST_F(JobServiceTest, RunsWhatWasAskedAndKeepsTheAnswer) {
  const Job done = wait(create(request()));
  EXPECT_EQ(done.state, JobState::kCompleted);
  EXPECT_THAT(done.result, HasSubstr(R"("response":"hello")"));
  EXPECT_THAT(done.result, HasSubstr(R"("total_tokens":4)"));
  EXPECT_EQ(done.request.model, "m");
  EXPECT_EQ(completer_->salt, "acme/") << "tenants share no prefixes";
}

TEST_F(JobServiceTest, ManyAreCreatedAtOnceAndAllAreRun) {
  std::atomic<int> made = 0;
  for (int i = 0; i < 200; ++i)
    service_->create({*JobService::draw_id(), request()}, [&](const Result<Job>& job) { made += job.ok(); });
  until([&] { return made == 200; });
  until([&] { return completer_->asked == 200; });
  until([&] { return jobs_->stats("")->running == 0; });
  control::JobFilter completed;
  completed.state = JobState::kCompleted;
  completed.limit = 500;
  EXPECT_EQ(jobs_->list(completed)->size(), 200u);
}

TEST_F(JobServiceTest, WhatMayPassIsTriedAgainAndWhatIsWrongIsNot) {
  completer_->answer = [&](api::CompletionSink& sink) {
    sink.on_error(api::error_from_status(internal_error("no way")));
  };
  const Job made = create(request());
  until([&] { return jobs_->find(made.id, "")->attempts == 2; });
  EXPECT_EQ(jobs_->find(made.id, "")->error, "no way");
  completer_->answer = [&](api::CompletionSink& sink) { sink.on_error(api::invalid_request("bad")); };
  const Job failed = wait(made);
  EXPECT_EQ(failed.state, JobState::kFailed);
  EXPECT_EQ(failed.error, "bad");
  EXPECT_EQ(failed.attempts, 3);
}

TEST_F(JobServiceTest, WaitingForRoomCostsNoAttempt) {
  completer_->answer = [&](api::CompletionSink& sink) {
    sink.on_error(api::service_unavailable("no route"));
  };
  control::JobRequest once = request();
  once.max_attempts = 1;
  const Job made = create(once);
  until([&] { return completer_->asked >= 2; });
  completer_->answer = Answering().answer;
  const Job done = wait(made);
  EXPECT_EQ(done.state, JobState::kCompleted);
  EXPECT_EQ(done.attempts, 1);
}

TEST_F(JobServiceTest, CancellingAndTheTimeoutStopWhatRuns) {
  completer_->answer = [](api::CompletionSink&) {};
  const Job made = create(request());
  until([&] { return completer_->asked == 1; });
  std::promise<void> cancelled;
  service_->cancel(made.id, "acme", [&](const Result<Job>& job) {
    EXPECT_EQ(job->state, JobState::kCancelled);
    cancelled.set_value();
  });
  cancelled.get_future().wait();
  EXPECT_EQ(completer_->cancelled, 1);
  control::JobRequest quick = request();
  quick.timeout_ms = 20;
  quick.max_attempts = 1;
  const Job slow = wait(create(quick));
  EXPECT_EQ(slow.state, JobState::kFailed);
  EXPECT_THAT(slow.error, HasSubstr("longer than"));
  EXPECT_EQ(completer_->cancelled, 2);
}

TEST_F(JobServiceTest, CancelledByAnotherGatewayItStops) {
  completer_->answer = [](api::CompletionSink&) {};
  const Job made = create(request());
  until([&] { return completer_->asked == 1; });
  EXPECT_TRUE(jobs_->cancel(made.id, "").ok());  // as another process would
  EXPECT_EQ(wait(made).state, JobState::kCancelled);
  until([&] { return completer_->cancelled == 1; });
}

TEST_F(JobServiceTest, StoppingGivesBackWhatRuns) {
  completer_->answer = [](api::CompletionSink&) {};
  const Job made = create(request());
  until([&] { return completer_->asked == 1; });
  service_->stop();
  EXPECT_EQ(completer_->cancelled, 1);
  const Job queued = *jobs_->find(made.id, "");
  EXPECT_EQ(queued.state, JobState::kQueued);
  EXPECT_EQ(queued.attempts, 0);
  service_.reset();
  completer_->answer = Answering().answer;
  start();
  EXPECT_EQ(wait(made).state, JobState::kCompleted);
}

TEST_F(JobServiceTest, AWatchEndsInTime) {
  completer_->answer = [](api::CompletionSink&) {};
  const Job made = create(request());
  std::promise<bool> ended;
  service_->watch(made.id, 20ms, [&](const std::optional<Job>& now) {
    if (!now) ended.set_value(true);
    return true;
  });
  EXPECT_TRUE(ended.get_future().get());
  service_->stop();
}

TEST_F(JobServiceTest, IsCheckedAsAChatRequestIs) {
  control::JobRequest r = request();
  r.type = "image_gen";
  EXPECT_EQ(service_->check(r, caller_)->code, "unsupported_type");
  r = request();
  r.params = R"({"messages":[{"role":"user","content":"hi"}],"temperature":-1})";
  EXPECT_EQ(service_->check(r, caller_)->param, "temperature");
  r.params = R"({"messages":[{"role":"user","content":"hi"}],"n":2})";
  EXPECT_EQ(service_->check(r, caller_)->param, "n");
  r.params = R"({"messages":[{"role":"user","content":"hi"}],"model":"x"})";
  EXPECT_EQ(service_->check(r, caller_)->status, 404);
  r = request();
  api::Caller limited;
  limited.types = {"image_gen"};
  EXPECT_EQ(service_->check(r, limited)->status, 403);
  limited.types = {};
  limited.models = {"other"};
  EXPECT_EQ(service_->check(r, limited)->status, 403);
  r.webhook_url = "http://hooks.example.evil/x";
  EXPECT_EQ(service_->check(r, caller_)->param, "webhook");
  r.webhook_url = "https://hooks.example/x";
  EXPECT_FALSE(service_->check(r, caller_).has_value());
}

TEST(Webhook, TheSignatureCoversTimeAndBody) {
  // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
  EXPECT_EQ(webhook_signature("secret", 1'700'000'000, R"({"a":1})"),
            "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686");
  EXPECT_TRUE(check_webhook("https://any/x", {"*"}).ok());
  EXPECT_EQ(check_webhook("ftp://any/x", {"*"}).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_webhook("https://a/x", {}).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::gateway
