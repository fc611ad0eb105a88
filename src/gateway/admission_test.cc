#include "gateway/admission.h"

#include <gtest/gtest.h>

#include "api/test_fakes.h"
#include "cluster/manual_executor.h"
#include "store/sqlite_database.h"

namespace tessera::gateway {
namespace {

using control::kNano;

class ManualClock final : public Clock {
 public:
  explicit ManualClock(const cluster::ManualExecutor& executor) : executor_(executor) {}
  MonotonicTime now() const override { return executor_.now(); }
  int64_t unix_time_ms() const override {
    return 1'700'000'040'000 + std::chrono::duration_cast<std::chrono::milliseconds>(now()).count();
  }

 private:
  const cluster::ManualExecutor& executor_;
};

class Ignore final : public api::CompletionObserver {
  void on_model(const std::string&) override {}
  void on_prompt(int) override {}
  void on_tokens(int, int) override {}
  void on_end(int, const api::Usage&) override {}
};

class AdmissionTest : public testing::Test {
 protected:
  AdmissionTest() : database_(std::move(*store::open_sqlite(":memory:"))) {
    tenants_ = std::move(*control::Tenants::open(*database_, clock_));
    usage_ = std::move(*control::Usage::open(*database_, clock_));
    meter_ = std::make_unique<UsageMeter>(*usage_, executor_, clock_);
    admission_ = std::make_unique<Admission>(quotas_, *tenants_, *usage_, *meter_, executor_, clock_);
    caller_.key = "key_a";
  }
  // One request; what it was answered if it was refused.
  std::shared_ptr<api::RecordingWriter> ask(std::string body = R"({"prompt":"x","max_tokens":10})") {
    auto request = std::make_shared<net::HttpRequest>();
    request->body = std::move(body);
    request->id = "the client's";
    auto writer = std::make_shared<api::RecordingWriter>();
    Call call;
    call.request = request;
    call.writer = writer;
    call.record = std::make_shared<Ignore>();
    call.caller = std::make_shared<const api::Caller>(caller_);
    admission_->admit(call, [this](const Call& c) { admitted_.push_back(c); });
    executor_.run();
    return writer;
  }
  void finish(const Call& call, int prompt, int completion, int status = 200) {
    call.record->on_model("m");
    call.record->on_prompt(prompt);
    for (int i = 0; i < completion; ++i) call.record->on_tokens(0, 1);
    call.record->on_end(status, status == 200 ? api::Usage{prompt, completion, 0} : api::Usage{});
    settle();
  }
  void settle() { executor_.advance(std::chrono::milliseconds(10)); }
  std::vector<control::UsageRecord> records() { return *usage_->records({}, 100, 0); }
  control::EnterpriseProfile profile() { return tenants_->find_enterprise("default")->profile; }

  cluster::ManualExecutor executor_;
  ManualClock clock_{executor_};
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<store::State> state_ = store::make_memory_state(clock_);
  std::unique_ptr<control::Tenants> tenants_;
  std::unique_ptr<control::Usage> usage_;
  control::Quotas quotas_{*state_, clock_};
  std::unique_ptr<UsageMeter> meter_;
  std::unique_ptr<Admission> admission_;
  api::Caller caller_;
  std::vector<Call> admitted_;
};

TEST_F(AdmissionTest, EveryRequestIsMeteredOnceWithWhatWasGenerated) {
  for (int i = 0; i < 4; ++i) ask();
  ASSERT_EQ(admitted_.size(), 4u);
  finish(admitted_[0], 7, 3);
  finish(admitted_[1], 7, 2, 499);       // its client left
  finish(admitted_[2], 7, 0, 503);       // it failed
  finish(admitted_[0], 7, 3);            // the end is told once more
  admitted_[3].record->on_end(429, {});  // refused before a model was known
  settle();
  auto all = records();
  ASSERT_EQ(all.size(), 3u);
  std::map<int, int64_t> quantity;
  for (const auto& record : all) {
    quantity[record.status] = record.quantity;
    EXPECT_EQ(record.request_id, "the client's");
    EXPECT_EQ(record.key, "key_a");
    EXPECT_EQ(record.amount, record.quantity * 2000);
  }
  EXPECT_EQ(quantity, (std::map<int, int64_t>{{200, 10}, {499, 9}, {503, 7}}));
}

TEST_F(AdmissionTest, ARequestThatIsDroppedUnansweredIsMeteredToo) {
  ask();
  admitted_[0].record->on_model("m");
  admitted_[0].record->on_prompt(5);
  admitted_.clear();
  settle();
  ASSERT_EQ(records().size(), 1u);
  EXPECT_EQ(records()[0].status, 500);
  EXPECT_EQ(records()[0].prompt_tokens, 5);
}

TEST_F(AdmissionTest, AnEngineThatCountsNoTokensIsMeteredByRequests) {
  ask();
  finish(admitted_[0], 0, 0);
  EXPECT_EQ(records().at(0).type, control::UsageType::kLlmRequests);
  EXPECT_EQ(records().at(0).amount, kNano / 100);
}

TEST_F(AdmissionTest, LimitsAnswer429WithWhatIsLeft) {
  caller_.limits.requests_per_minute = 2;
  caller_.tenant_limits.tokens_per_minute = 1000;
  ask();
  ask();
  const auto refused = ask();
  EXPECT_EQ(admitted_.size(), 2u);
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(refused->header("x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(refused->header("x-ratelimit-remaining-requests"), "0");
  EXPECT_GT(std::stoi(refused->header("Retry-After")), 0);
  EXPECT_NE(refused->body.find("rate_limit_exceeded"), std::string::npos);
  admitted_[0].answer({});
  settle();
  EXPECT_EQ(admission_->running(), 1u) << "the other one still holds its share";
  admitted_.clear();
  settle();
  EXPECT_EQ(admission_->running(), 0u);
}

TEST_F(AdmissionTest, TokensThatWereNotUsedComeBack) {
  caller_.limits.tokens_per_minute = 100;
  ask(R"({"prompt":"x","max_tokens":80})");
  EXPECT_EQ(ask(R"({"prompt":"x","max_tokens":80})")->status, 429);
  finish(admitted_.at(0), 4, 6);
  EXPECT_EQ(ask(R"({"prompt":"x","max_tokens":80})")->status, 0);
  EXPECT_EQ(ask(R"({"prompt":"x","max_tokens":500})")->header("Retry-After"), "") << "never fits";
}

TEST_F(AdmissionTest, ConcurrentRequestsAreReleasedAtTheirEndAndRenewedUntilThen) {
  caller_.limits.concurrent = 1;
  ask();
  EXPECT_EQ(ask()->status, 429);
  executor_.advance(std::chrono::minutes(10));
  EXPECT_EQ(ask()->status, 429) << "it still runs";
  finish(admitted_[0], 1, 1);
  EXPECT_EQ(ask()->status, 0);
}

TEST_F(AdmissionTest, ABudgetThatIsUsedUpAnswers402) {
  auto p = profile();
  p.monthly_budget = 20'000;  // ten tokens
  ASSERT_TRUE(tenants_->update_enterprise("default", p).ok());
  ask();
  finish(admitted_.at(0), 5, 5);
  executor_.advance(std::chrono::seconds(2));
  const auto refused = ask();
  EXPECT_EQ(refused->status, 402);
  EXPECT_NE(refused->body.find("budget_exceeded"), std::string::npos);
  p.monthly_budget = kNano;
  ASSERT_TRUE(tenants_->update_enterprise("default", p).ok());
  admission_->forget();
  EXPECT_EQ(ask()->status, 0) << "raised";
}

TEST_F(AdmissionTest, WhoPaysAheadNeedsCredit) {
  auto p = profile();
  p.prepaid = true;
  ASSERT_TRUE(tenants_->update_enterprise("default", p, 2000).ok());
  ask();
  finish(admitted_.at(0), 1, 1);
  executor_.advance(std::chrono::seconds(2));
  EXPECT_NE(ask()->body.find("insufficient_credit"), std::string::npos);
  EXPECT_EQ(profile().credit_balance, -2000) << "what was generated is debited";
}

// Fails as often as it is told to.
class FaultyDatabase final : public store::Database {
 public:
  explicit FaultyDatabase(store::Database& inner) : inner_(inner) {}
  Result<store::Rows> execute(std::string_view sql, const std::vector<store::Value>& params) override {
    return inner_.execute(sql, params);
  }
  Status script(std::string_view sql) override { return inner_.script(sql); }
  Status transaction(const std::function<Status(store::Statements&)>& body) override {
    if (failures <= 0) return inner_.transaction(body);
    --failures;
    if (failures % 2 == 0) return unavailable("away");
    (void)inner_.transaction(body);  // it was written, but the answer got lost
    return unavailable("lost on the way back");
  }
  const std::string& description() const override { return inner_.description(); }
  int failures = 0;

 private:
  store::Database& inner_;
};

TEST_F(AdmissionTest, UsageIsWrittenOnceThoughTheDatabaseFails) {
  FaultyDatabase faulty(*database_);
  auto usage = std::move(*control::Usage::open(faulty, clock_));
  UsageMeter meter(*usage, executor_, clock_);
  faulty.failures = 4;
  for (int i = 0; i < 300; ++i) {
    auto record = meter.measure(caller_, "r", std::make_shared<Ignore>());
    record->on_model("m");
    record->on_prompt(1);
    record->on_end(499, {});
  }
  executor_.advance(std::chrono::seconds(10));
  EXPECT_EQ(meter.pending(), 0u);
  EXPECT_EQ(usage_->totals({})->requests, 300);
  EXPECT_EQ(usage_->totals({})->amount, 300 * 2000);
  EXPECT_EQ(profile().credit_balance, -300 * 2000);
}

}  // namespace
}  // namespace tessera::gateway
