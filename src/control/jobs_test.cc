// The queue on every database that it runs on.
#include "control/jobs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "store/sqlite_database.h"
#include "store/test_servers.h"

namespace tessera::control {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Implementation {
  const char* name;
  std::function<Result<std::unique_ptr<store::Database>>()> open;
  std::function<std::string()> missing = [] { return std::string(); };
};

class JobsTest : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override {
    if (const std::string missing = GetParam().missing(); !missing.empty()) GTEST_SKIP() << missing;
    auto opened = GetParam().open();
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    database_ = std::move(*opened);
    auto jobs = Jobs::open(*database_, clock_);
    ASSERT_TRUE(jobs.ok()) << jobs.status().to_string();
    jobs_ = std::move(*jobs);
  }
  static JobRequest request() {
    JobRequest r;
    r.tenant = "acme";
    r.type = "llm";
    r.params = R"({"messages":[]})";
    return r;
  }
  Job create(const JobRequest& r) {
    auto made = jobs_->create({{"job_" + std::to_string(++drawn_), r}});
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    EXPECT_TRUE((*made)[0].ok());
    return *(*made)[0];
  }
  std::vector<Job> take(const std::string& owner, int most = 1, const std::string& region = "") {
    Jobs::Taker taker;
    taker.owner = owner;
    taker.region = region;
    taker.models = {"m1", "m2"};
    taker.lease = 1000ms;
    auto taken = jobs_->take(taker, most);
    EXPECT_TRUE(taken.ok()) << taken.status().to_string();
    return taken.ok() ? *taken : std::vector<Job>();
  }
  std::vector<std::string> ids(const std::vector<Job>& jobs) {
    std::vector<std::string> all;
    for (const Job& job : jobs) all.push_back(job.id);
    return all;
  }
  bool finish(const Job& job, JobOutcome::Kind kind, const std::string& text = R"({"response":"x"})") {
    auto counted = jobs_->finish({{job.id, job.owner, job.epoch, kind, text}});
    EXPECT_TRUE(counted.ok()) << counted.status().to_string();
    return counted.ok() && (*counted)[0];
  }
  Job now(const Job& job) { return *jobs_->find(job.id, ""); }

  store::ManualClock clock_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<Jobs> jobs_;
  int drawn_ = 0;
};

TEST_P(JobsTest, AJobGoesItsWay) {
  JobRequest asked = request();
  asked.key = "k";
  asked.model = "m1";
  asked.priority = 3;
  asked.region = "";
  asked.timeout_ms = 1234;
  asked.webhook_url = "https://h/x";
  asked.webhook_secret = "s";
  const Job made = create(asked);
  const Job queued = now(made);
  EXPECT_EQ(queued.state, JobState::kQueued);
  EXPECT_EQ(queued.request.params, asked.params);
  EXPECT_EQ(queued.request.model, "m1");
  EXPECT_EQ(queued.request.timeout_ms, 1234);
  EXPECT_EQ(queued.request.webhook_secret, "s");
  EXPECT_EQ(queued.created_ms, clock_.unix_time_ms());
  clock_.advance(5ms);
  const auto taken = take("g1", 1, "eu");
  ASSERT_THAT(ids(taken), ElementsAre(made.id));
  EXPECT_EQ(taken[0].state, JobState::kRunning);
  EXPECT_EQ(taken[0].attempts, 1);
  EXPECT_EQ(taken[0].started_ms, clock_.unix_time_ms());
  EXPECT_EQ(taken[0].ran_in, "eu");
  EXPECT_THAT(take("g2"), IsEmpty());
  clock_.advance(5ms);
  EXPECT_TRUE(finish(taken[0], JobOutcome::kDone));
  EXPECT_TRUE(finish(taken[0], JobOutcome::kDone, "another result")) << "said twice";
  const Job ended = now(made);
  EXPECT_EQ(ended.state, JobState::kCompleted);
  EXPECT_EQ(ended.result, R"({"response":"x"})");
  EXPECT_EQ(ended.ended_ms, clock_.unix_time_ms());
}

TEST_P(JobsTest, PriorityThenAgeAndOnlyModelsThatAreServed) {
  JobRequest other = request(), urgent = request();
  other.model = "m3";
  urgent.priority = 5;
  urgent.model = "m2";
  const Job first = create(request()), unserved = create(other), second = create(request()),
            third = create(urgent);
  EXPECT_EQ(*jobs_->position(third), 0);
  EXPECT_EQ(*jobs_->position(second), 3);
  EXPECT_THAT(ids(take("g", 10)), ElementsAre(third.id, first.id, second.id));
  EXPECT_EQ(now(unserved).state, JobState::kQueued);
}

TEST_P(JobsTest, RegionsAndReach) {
  JobRequest here = request(), there = request(), only_there = request();
  here.region = "eu";
  there.region = "asia";
  only_there.region = "asia";
  only_there.cross_region = false;
  const Job a = create(here), b = create(there), c = create(only_there);
  EXPECT_THAT(ids(take("g", 10, "eu")), ElementsAre(a.id));
  clock_.advance(6s);
  EXPECT_THAT(ids(take("g", 10, "eu")), ElementsAre(b.id));
  EXPECT_THAT(ids(take("g", 10, "asia")), ElementsAre(c.id));
  EXPECT_EQ(now(c).ran_in, "asia");
}

TEST_P(JobsTest, AnIdempotencyKeyMakesOneJob) {
  JobRequest asked = request();
  asked.idempotency_key = "once";
  const Job first = create(asked);
  EXPECT_EQ(create(asked).id, first.id);
  JobRequest changed = asked;
  changed.params = "{}";
  auto refused = jobs_->create({{"job_x", changed}, {"job_y", request()}});
  ASSERT_TRUE(refused.ok());
  EXPECT_EQ((*refused)[0].status().code(), Code::kInvalidArgument);
  EXPECT_TRUE((*refused)[1].ok()) << "the others of the batch are made";
  JobRequest other = asked;
  other.tenant = "else";
  EXPECT_NE(create(other).id, first.id) << "keys are each tenant's own";
  // Also long after it has ended.
  const auto taken = take("g", 10);
  for (const Job& job : taken) finish(job, JobOutcome::kDone);
  EXPECT_EQ(create(asked).id, first.id);
  EXPECT_EQ(now(first).state, JobState::kCompleted);
}

TEST_P(JobsTest, ALostLeaseIsFencedAndTheNextOwnersResultCounts) {
  const Job made = create(request());
  const Job lost = take("g1").at(0);
  EXPECT_EQ(*jobs_->end_leases(), 0);
  clock_.advance(900ms);
  EXPECT_THAT(*jobs_->prolong("g1", 1000ms), ElementsAre(made.id));
  clock_.advance(900ms);
  EXPECT_EQ(*jobs_->end_leases(), 0) << "it was prolonged";
  clock_.advance(200ms);
  EXPECT_EQ(*jobs_->end_leases(), 1);
  EXPECT_THAT(*jobs_->prolong("g1", 1000ms), IsEmpty());
  EXPECT_THAT(now(made).error, HasSubstr("was lost"));
  EXPECT_THAT(take("g2"), IsEmpty()) << "not at once";
  clock_.advance(Jobs::backoff(1));
  const Job next = take("g2").at(0);
  EXPECT_EQ(next.attempts, 2);
  EXPECT_FALSE(finish(lost, JobOutcome::kDone, "\"stale\""));
  EXPECT_FALSE(finish(lost, JobOutcome::kGiveBack));
  EXPECT_TRUE(finish(next, JobOutcome::kDone, "\"fresh\""));
  EXPECT_FALSE(finish(lost, JobOutcome::kDone, "\"stale\""));
  EXPECT_EQ(now(made).result, "\"fresh\"");
}

TEST_P(JobsTest, TheSameOwnerIsFencedToo) {
  create(request());
  const Job before = take("g").at(0);
  clock_.advance(1100ms);
  EXPECT_EQ(*jobs_->end_leases(), 1);
  clock_.advance(2s);
  const Job again = take("g").at(0);
  EXPECT_FALSE(finish(before, JobOutcome::kDone, "\"stale\""));
  EXPECT_TRUE(finish(again, JobOutcome::kDone));
}

TEST_P(JobsTest, RetriesWaitLongerEachTimeAndEnd) {
  JobRequest asked = request();
  asked.max_attempts = 3;
  const Job made = create(asked);
  EXPECT_LT(Jobs::backoff(1), Jobs::backoff(2));
  EXPECT_LE(Jobs::backoff(1000), 60s);
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_EQ(now(made).state, JobState::kQueued);
    const Job running = take("g").at(0);
    EXPECT_EQ(running.attempts, attempt);
    EXPECT_TRUE(finish(running, JobOutcome::kTryAgain, "no room"));
    EXPECT_THAT(take("g"), IsEmpty());
    clock_.advance(Jobs::backoff(attempt) + 1ms);
  }
  EXPECT_EQ(now(made).state, JobState::kFailed);
  EXPECT_EQ(now(made).error, "no room");
  // What waits for room costs no attempt, but not for ever.
  const Job waiting = create(asked);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(finish(take("g").at(0), JobOutcome::kNoRoom, "no route"));
    clock_.advance(Jobs::backoff(1) + 1ms);
  }
  EXPECT_EQ(now(waiting).attempts, 0);
  EXPECT_EQ(now(waiting).error, "no route");
  clock_.advance(Jobs::kLongestWait);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(finish(take("g").at(0), JobOutcome::kNoRoom, "no route"));
    clock_.advance(Jobs::backoff(i + 1) + 1ms);
  }
  EXPECT_EQ(now(waiting).state, JobState::kFailed);
  // What is final is not tried again; what is given back costs no attempt.
  const Job other = create(asked);
  EXPECT_TRUE(finish(take("g").at(0), JobOutcome::kGiveBack));
  EXPECT_EQ(now(other).attempts, 0);
  EXPECT_TRUE(finish(take("g").at(0), JobOutcome::kFailed, "bad prompt"));
  EXPECT_EQ(now(other).state, JobState::kFailed);
}

TEST_P(JobsTest, CancelQueuedRunningAndEnded) {
  const Job queued = create(request());
  EXPECT_EQ(jobs_->cancel(queued.id, "else").status().code(), Code::kNotFound);
  EXPECT_EQ(jobs_->cancel("job_none", "").status().code(), Code::kNotFound);
  EXPECT_EQ(jobs_->cancel(queued.id, "acme")->state, JobState::kCancelled);
  EXPECT_THAT(take("g"), IsEmpty());
  create(request());
  const Job running = take("g").at(0);
  EXPECT_EQ(jobs_->cancel(running.id, "")->state, JobState::kCancelled);
  EXPECT_THAT(*jobs_->prolong("g", 1000ms), IsEmpty());
  EXPECT_FALSE(finish(running, JobOutcome::kDone)) << "its result does not count";
  EXPECT_EQ(now(running).result, "");
  create(request());
  const Job done = take("g").at(0);
  finish(done, JobOutcome::kDone);
  EXPECT_EQ(jobs_->cancel(done.id, "acme")->state, JobState::kCompleted);
}

TEST_P(JobsTest, ListsByTenantStateAndPage) {
  std::vector<std::string> made;
  for (int i = 0; i < 5; ++i) made.push_back(create(request()).id);
  JobRequest other = request();
  other.tenant = "else";
  create(other);
  JobFilter filter;
  filter.tenant = "acme";
  filter.limit = 2;
  const auto page = *jobs_->list(filter);
  EXPECT_THAT(ids(page), ElementsAre(made[4], made[3]));
  filter.before = page.back().number;
  EXPECT_THAT(ids(*jobs_->list(filter)), ElementsAre(made[2], made[1]));
  take("g", 1);
  filter = {};
  filter.state = JobState::kRunning;
  EXPECT_THAT(ids(*jobs_->list(filter)), ElementsAre(made[0]));
  EXPECT_EQ(jobs_->find(made[0], "else").status().code(), Code::kNotFound);
}

TEST_P(JobsTest, StatsAreMeasured) {
  EXPECT_EQ(jobs_->stats("")->service_ms, 0);
  for (int i = 0; i < 4; ++i) create(request());
  const auto taken = take("g", 2);
  clock_.advance(300ms);
  finish(taken[0], JobOutcome::kDone);
  clock_.advance(200ms);
  finish(taken[1], JobOutcome::kDone);
  take("g2", 1);
  const QueueStats stats = *jobs_->stats("");
  EXPECT_EQ(stats.queued, 1);
  EXPECT_EQ(stats.running, 1);
  EXPECT_EQ(stats.owners, 1);
  EXPECT_DOUBLE_EQ(stats.service_ms, 400);
  EXPECT_THAT(stats.by_type, ElementsAre(std::pair<std::string, int64_t>("llm", 1)));
}

TEST_P(JobsTest, WebhooksAreToldAtLeastOnceAndNotForEver) {
  JobRequest asked = request();
  asked.webhook_url = "https://h/x";
  const Job made = create(asked);
  create(request());
  EXPECT_THAT(*jobs_->take_webhooks(5), IsEmpty()) << "not before it has ended";
  for (const Job& job : take("g", 5)) finish(job, JobOutcome::kDone);
  for (int64_t attempt = 1; attempt <= Jobs::kMostWebhookAttempts; ++attempt) {
    const auto due = *jobs_->take_webhooks(5);
    ASSERT_EQ(due.size(), 1u) << attempt;
    EXPECT_EQ(due[0].job.id, made.id);
    EXPECT_EQ(due[0].attempt, attempt);
    EXPECT_THAT(*jobs_->take_webhooks(5), IsEmpty()) << "it is somebody's";
    ASSERT_TRUE(jobs_->webhook_done(due[0], false).ok());
    EXPECT_EQ(*jobs_->forget_ended_before(clock_.unix_time_ms() + 1, 1),
              attempt == 1 || attempt == Jobs::kMostWebhookAttempts ? 1 : 0);
    clock_.advance(61s);
  }
  EXPECT_THAT(*jobs_->take_webhooks(5), IsEmpty());
  const Job again = create(asked);
  finish(take("g").at(0), JobOutcome::kDone);
  const auto lost = *jobs_->take_webhooks(5);  // its sender dies
  ASSERT_EQ(lost.size(), 1u);
  clock_.advance(61s);
  const auto due = *jobs_->take_webhooks(5);
  ASSERT_EQ(due.size(), 1u);
  EXPECT_TRUE(jobs_->webhook_done(lost[0], false).ok()) << "late, and of no effect";
  EXPECT_TRUE(jobs_->webhook_done(due[0], true).ok());
  clock_.advance(61s);
  EXPECT_THAT(*jobs_->take_webhooks(5), IsEmpty());
}

TEST_P(JobsTest, EndedJobsAreForgotten) {
  const Job old = create(request());
  finish(take("g").at(0), JobOutcome::kDone);
  clock_.advance(10s);
  const Job fresh = create(request());
  finish(take("g").at(0), JobOutcome::kDone);
  const Job queued = create(request());
  EXPECT_EQ(*jobs_->forget_ended_before(clock_.unix_time_ms() - 5000, 10), 1);
  EXPECT_EQ(jobs_->find(old.id, "").status().code(), Code::kNotFound);
  EXPECT_TRUE(jobs_->find(fresh.id, "").ok());
  EXPECT_TRUE(jobs_->find(queued.id, "").ok());
}

// Several gateways at once: every job is taken by one of them, and has one result.
TEST_P(JobsTest, ManyOwnersShareTheQueue) {
  constexpr int kJobs = 60;
  std::vector<Jobs::NewJob> batch;
  for (int i = 0; i < kJobs; ++i) batch.push_back({"job_" + std::to_string(i), request()});
  ASSERT_TRUE(jobs_->create(batch).ok());
  std::vector<std::vector<std::string>> taken(3);
  std::vector<std::thread> owners;
  for (size_t o = 0; o < 3; ++o)
    owners.emplace_back([&, o] {
      for (;;) {
        const auto mine = take("g" + std::to_string(o), 4);
        if (mine.empty()) return;
        for (const Job& job : mine) {
          taken[o].push_back(job.id);
          EXPECT_TRUE(finish(job, JobOutcome::kDone));
        }
      }
    });
  for (auto& owner : owners) owner.join();
  std::set<std::string> all;
  size_t count = 0;
  for (const auto& mine : taken) {
    count += mine.size();
    all.insert(mine.begin(), mine.end());
  }
  EXPECT_EQ(count, size_t{kJobs});
  EXPECT_EQ(all.size(), size_t{kJobs});
}

INSTANTIATE_TEST_SUITE_P(
    Databases, JobsTest,
    ::testing::Values(Implementation{"Sqlite", [] { return store::open_sqlite(":memory:"); }},
                      Implementation{"Postgres",
                                     [] {
                                       return store::open_postgres(
                                           store::shared_server<store::TestPostgres>().fresh());
                                     },
                                     [] { return store::shared_server<store::TestPostgres>().missing(); }}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera::control
