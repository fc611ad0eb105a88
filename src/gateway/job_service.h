// JobService: takes jobs, keeps them, runs them through the same completers as a chat request, and says what
// came of them.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/model_set.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "control/jobs.h"
#include "obs/metrics.h"

namespace tessera::gateway {

struct JobServiceOptions {
  std::string owner;   // this process, different at every start
  std::string region;  // where it stands; empty: not said
  int slots = 8;       // jobs that it runs at a time
  std::chrono::milliseconds lease{12'000};
  std::chrono::milliseconds poll{500};  // looks for jobs of other gateways, lost leases, due webhooks
  std::chrono::hours kept{7 * 24};      // ended jobs, then deleted
  // Hosts that webhooks may go to; "*": all. Empty: none: whoever may create a job could reach into the
  // gateway's network by it.
  std::vector<std::string> webhook_hosts;
};

// What a client is told of a job beside itself.
struct JobStanding {
  std::optional<int64_t> position;  // jobs before it; none: more than are counted, or it does not wait
  std::optional<double> wait;       // seconds; none: nothing was measured yet
};

// Thread-safe; nothing blocks: the database is asked on a thread of this service's, which calls back.
class JobService {
 public:
  template <typename T>
  using Done = std::function<void(T)>;

  // All references outlive it. The completers call nothing of it any more when it is destroyed: they must
  // have settled after stop().
  JobService(JobServiceOptions options, control::Jobs& jobs, const api::ModelSet& models,
             obs::Metrics& metrics, const Clock& clock);
  ~JobService();

  // Whether it could be run as it is, for this caller: nullopt, or the answer that a chat request would get.
  // Writes down the model that it needs.
  std::optional<api::ApiError> check(control::JobRequest& request, const api::Caller& caller) const;
  // The id that the job will have, if it is new.
  static Result<std::string> draw_id();

  // Calls back when it is durable. Many at a time share a commit.
  void create(control::Jobs::NewJob job, Done<Result<control::Job>> done);
  void find(const std::string& id, const std::string& tenant, Done<Result<control::Job>> done);
  // What runs here stops at once; what another gateway runs, when that prolongs its lease.
  void cancel(const std::string& id, const std::string& tenant, Done<Result<control::Job>> done);
  void list(const control::JobFilter& filter, Done<Result<std::vector<control::Job>>> done);
  void stats(const std::string& region, Done<Result<control::QueueStats>> done);
  void standing(const control::Job& job, Done<JobStanding> done);

  // Tells `changed` of the job now and whenever its state is another, last when it has ended. It answers
  // whether it wants to hear more. nullopt: the job is gone, or `limit` came first; nothing follows.
  void watch(const std::string& id, std::chrono::milliseconds limit,
             std::function<bool(const std::optional<control::Job>&)> changed);

  // Seconds until a job with so many before it begins, from what jobs took lately; none: no job has yet.
  std::optional<double> wait_of(const control::QueueStats& stats, int64_t before) const;
  // Takes no more jobs, ends those that run and gives them back: another gateway, or the next start, runs
  // them. Not from the service's thread.
  void stop();

 private:
  class Attempt;
  struct Running {
    control::Job job;
    std::shared_ptr<Attempt> attempt;
    TimerId timeout = 0;
  };
  struct Watch {
    std::string id;
    std::function<bool(const std::optional<control::Job>&)> changed;
    control::JobState told = control::JobState::kQueued;
    bool told_once = false;
    MonotonicTime until{};
  };
  struct Pending {
    control::Jobs::NewJob job;
    Done<Result<control::Job>> done;
  };

  // On the service's thread.
  void look();
  void flush();
  void commit_created(std::vector<Pending>& pending);
  void commit_outcomes();
  void fill();
  void run(control::Job job);
  void ended(const std::string& id, int64_t epoch, control::JobOutcome outcome);
  void stop_attempt(const std::string& id);
  void prolong();
  void tell_watchers(const control::Job& job);
  void look_at(const std::string& id);
  void end_watches();
  void deliver_webhooks();
  void flush_soon();

  const JobServiceOptions options_;
  control::Jobs& jobs_;
  const api::ModelSet& models_;
  const Clock& clock_;
  obs::Counter& created_;
  obs::Counter& completed_;
  obs::Counter& failed_;
  obs::Counter& retried_;
  obs::Gauge& running_gauge_;

  Mutex mutex_;
  std::vector<Pending> pending_ TESSERA_GUARDED_BY(mutex_);
  bool flush_posted_ TESSERA_GUARDED_BY(mutex_) = false;

  // Of the service's thread alone.
  std::vector<control::JobOutcome> outcomes_;  // not yet in the database
  std::map<std::string, Running> running_;
  std::vector<Watch> watches_;
  MonotonicTime prolonged_{}, swept_{};
  bool stopping_ = false;
  bool told_database_away_ = false;
  int webhooks_under_way_ = 0;
  std::optional<control::QueueStats> stats_;  // of all regions, for estimates
  MonotonicTime stats_until_{};

  const std::unique_ptr<Executor> webhooks_;  // may wait for other people's servers
  const std::unique_ptr<Executor> thread_;    // ends first
};

}  // namespace tessera::gateway
