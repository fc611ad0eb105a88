// The jobs of a process that serves: their queue in the database, who runs them, their routes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "gateway/job_routes.h"
#include "gateway/job_service.h"
#include "store/database.h"

namespace tessera::app {

struct JobOptions {
  std::string region;
  int job_slots = 8;
  int job_lease = 12'000;
  int job_days = 7;
  std::vector<std::string> webhook_hosts;
  template <typename V>
  void fields(V& v) {
    v("region", region, "where this gateway stands, for jobs that ask for a region");
    v("job-slots", job_slots, "jobs that run at a time here");
    v("job-lease", job_lease, "milliseconds after which the jobs of a lost gateway are run by another");
    v("job-days", job_days, "days that ended jobs are kept");
    v("webhook-host", webhook_hosts, "a host that jobs' webhooks may go to, or *; repeat for several");
  }
};
Status check_job_options(const JobOptions& options);

// Outlives the HTTP server. Its references outlive it, and the models' completers have settled when it ends.
class JobHost {
 public:
  static Result<std::unique_ptr<JobHost>> open(const JobOptions& options, store::Database& database,
                                               const api::ModelSet& models, obs::Metrics& metrics,
                                               gateway::JobRoutes::CountWorkers workers);
  gateway::RouteGroup* routes() { return routes_.get(); }
  // No job runs here any more; the completers' settling comes after it.
  void stop() { service_->stop(); }

 private:
  JobHost() = default;
  SystemClock clock_;
  std::unique_ptr<control::Jobs> jobs_;
  std::unique_ptr<gateway::JobService> service_;
  std::unique_ptr<gateway::JobRoutes> routes_;
};

}  // namespace tessera::app
