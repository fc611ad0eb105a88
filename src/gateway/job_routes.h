// /api/v1/jobs: creating, waiting for, listing and cancelling jobs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "gateway/job_service.h"
#include "gateway/routes.h"

namespace tessera::gateway {

class JobRoutes final : public RouteGroup {
 public:
  // `workers`: asks how many workers serve now and calls back, from any thread. Both outlive this.
  using CountWorkers = std::function<void(std::function<void(int)>)>;
  JobRoutes(JobService& service, CountWorkers workers) : service_(service), workers_(std::move(workers)) {}
  std::vector<Route> routes() override;

 private:
  using Created = std::function<void(const control::Job&, bool is_new)>;
  void create(const Call& call, int64_t more_priority, const Created& created);
  void create_and_answer(const Call& call);
  void create_and_wait(const Call& call);
  void wait(const Call& call, const control::Job& job, std::chrono::milliseconds limit);
  void show(const Call& call);
  void list(const Call& call);
  void cancel(const Call& call);
  void stats(const Call& call);
  void answer_with_standing(const Call& call, const control::Job& job, const std::string& secret = {});

  JobService& service_;
  const CountWorkers workers_;
};

}  // namespace tessera::gateway
