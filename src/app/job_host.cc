#include "app/job_host.h"

#include "base/secrets.h"

namespace tessera::app {

Status check_job_options(const JobOptions& options) {
  if (options.job_slots < 1 || options.job_slots > 10'000)
    return invalid_argument("--job-slots is between 1 and 10000");
  if (options.job_lease < 300) return invalid_argument("--job-lease is at least 300 milliseconds");
  if (options.job_days < 1) return invalid_argument("--job-days is at least 1");
  return {};
}

Result<std::unique_ptr<JobHost>> JobHost::open(const JobOptions& options, store::Database& database,
                                               const api::ModelSet& models, obs::Metrics& metrics,
                                               gateway::JobRoutes::CountWorkers workers) {
  auto host = std::unique_ptr<JobHost>(new JobHost);
  TESSERA_ASSIGN_OR_RETURN(host->jobs_, control::Jobs::open(database, host->clock_));
  gateway::JobServiceOptions service;
  TESSERA_ASSIGN_OR_RETURN(const std::string drawn, random_text(9));
  service.owner = "gateway-" + drawn;
  service.region = options.region;
  service.slots = options.job_slots;
  service.lease = std::chrono::milliseconds(options.job_lease);
  service.kept = std::chrono::hours(24 * options.job_days);
  service.webhook_hosts = options.webhook_hosts;
  host->service_ =
      std::make_unique<gateway::JobService>(std::move(service), *host->jobs_, models, metrics, host->clock_);
  host->routes_ = std::make_unique<gateway::JobRoutes>(*host->service_, std::move(workers));
  return host;
}

}  // namespace tessera::app
