// Jobs: work that is kept until it is done. What was asked, who does it now, and what came of it, in the
// database; executing them is the gateway's (gateway/job_service.h).
//
// A job is run at least once and has exactly one result. Who runs it holds a lease; taking the lease counts
// the job's epoch up, and a result counts only with the epoch that the job has now: whoever was believed dead
// and comes back is refused (invariants I4, I5).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "store/database.h"

namespace tessera::control {

enum class JobState { kQueued, kRunning, kCompleted, kFailed, kCancelled };
constexpr const char* kJobStateNames[] = {"queued", "running", "completed", "failed", "cancelled"};
inline const char* job_state_name(JobState state) {
  return kJobStateNames[static_cast<size_t>(state)];
}
std::optional<JobState> parse_job_state(std::string_view name);

// What its creator asked for.
struct JobRequest {
  std::string tenant;    // whose it is
  std::string key;       // of the tenant's keys; may be empty
  std::string type;      // "llm"
  std::string params;    // JSON
  std::string model;     // that it needs; empty: none. Only gateways that serve it take the job
  int64_t priority = 0;  // higher first
  std::string region;    // where it shall run; empty: anywhere
  bool cross_region = true;
  int64_t timeout_ms = 300'000;  // of one attempt
  int64_t max_attempts = 3;
  std::string idempotency_key;  // empty: none. Unique within the tenant
  std::string webhook_url;      // empty: none
  std::string webhook_secret;
};

struct Job {
  std::string id;
  int64_t number = 0;  // in order of creation
  JobRequest request;
  JobState state = JobState::kQueued;
  int64_t attempts = 0;    // begun
  int64_t created_ms = 0;  // times: Unix milliseconds; 0: not yet
  int64_t due_ms = 0;      // not run before: a retry waits
  int64_t started_ms = 0;  // the latest attempt
  int64_t ended_ms = 0;
  std::string owner;     // who runs it, or ran it last
  int64_t epoch = 0;     // counts the leases
  int64_t lease_ms = 0;  // when the present one ends
  std::string ran_in;    // region of the owner
  std::string result;    // JSON; empty: none
  std::string error;     // of the last attempt that failed; one sentence
  bool ended() const { return state >= JobState::kCompleted; }
};

// One attempt as its owner saw it end.
struct JobOutcome {
  std::string id;
  std::string owner;
  int64_t epoch = 0;
  enum Kind {
    kDone,      // `text` is the result
    kFailed,    // `text` is the reason; final
    kTryAgain,  // `text` is the reason; failed for good when no attempt is left
    kNoRoom,    // `text` is the reason; nothing was begun: tried again soon, the attempt does not count
    kGiveBack   // its owner stops: somebody else takes it, the attempt does not count
  } kind = kDone;
  std::string text;
};

struct JobFilter {
  std::string tenant;  // empty: all
  std::optional<JobState> state;
  int64_t before = 0;  // only numbers below; 0: from the newest on
  int limit = 50;
};

struct QueueStats {
  int64_t queued = 0, running = 0;
  std::vector<std::pair<std::string, int64_t>> by_type;  // queued ones
  int64_t owners = 0;                                    // that run jobs now
  double service_ms = 0;  // of lately completed attempts, on average; 0: none yet
};

struct WebhookDelivery {
  Job job;
  int64_t attempt = 0;  // this one
};

// Thread-safe, also between processes that share the database: every function is one transaction (or none).
// Clock and database outlive it. Gateways' clocks shall agree within a fraction of a lease: where they do
// not, work is done twice, results stay single.
class Jobs {
 public:
  static constexpr int64_t kMostWebhookAttempts = 8;
  static constexpr int64_t kMostCounted = 1000;
  // A job that never finds room counts its attempts from then on, so that it ends at last.
  static constexpr std::chrono::hours kLongestWait{24};

  static Result<std::unique_ptr<Jobs>> open(store::Database& database, const Clock& clock);

  // All in one transaction: durable when it returns. One per request, in order; with an idempotency key that
  // was used before: the job that it made, or kInvalidArgument if that asked for something else.
  struct NewJob {
    std::string id;
    JobRequest request;
  };
  Result<std::vector<Result<Job>>> create(const std::vector<NewJob>& jobs);

  // Up to `most` jobs for this owner, the next ones first; their leases end `lease` from now. Jobs for
  // another region only where they allow it and have waited for `reach`.
  struct Taker {
    std::string owner, region;
    std::vector<std::string> models;  // that it serves
    std::chrono::milliseconds lease{12'000};
    std::chrono::milliseconds reach{5'000};
  };
  Result<std::vector<Job>> take(const Taker& taker, int most);
  // Prolongs the leases of this owner; answers the ids that it still holds.
  Result<std::vector<std::string>> prolong(const std::string& owner, std::chrono::milliseconds lease);
  // All in one transaction; one per outcome, whether it counted. False: the lease was lost, or the job was
  // cancelled. Saying the same outcome twice is true twice.
  Result<std::vector<bool>> finish(const std::vector<JobOutcome>& outcomes);
  // Ends leases that nobody prolonged: those jobs are queued again, or failed where no attempt is left.
  // Answers how many.
  Result<int64_t> end_leases();

  // kNotFound: not there, or of another tenant (`tenant` empty: all).
  Result<Job> find(const std::string& id, const std::string& tenant);
  Result<Job> cancel(const std::string& id, const std::string& tenant);  // an ended one stays as it is
  Result<std::vector<Job>> list(const JobFilter& filter);                // newest first
  // How many are to run before it; 0 for one that does not wait. Counts to kMostCounted.
  Result<int64_t> position(const Job& job);
  Result<QueueStats> stats(const std::string& region);  // empty: all

  // Webhooks that are due; each is this caller's for a minute.
  Result<std::vector<WebhookDelivery>> take_webhooks(int most);
  // Not delivered: tried again, later each time, kMostWebhookAttempts in all.
  Status webhook_done(const WebhookDelivery& delivery, bool delivered);

  // Deletes ended jobs, up to `most`; answers how many.
  Result<int64_t> forget_ended_before(int64_t unix_ms, int most);

  // Before an attempt that follows the given number of failed ones.
  static std::chrono::milliseconds backoff(int64_t failed);

 private:
  Jobs(store::Database& database, const Clock& clock) : database_(database), clock_(clock) {}
  store::Database& database_;
  const Clock& clock_;
};

}  // namespace tessera::control
