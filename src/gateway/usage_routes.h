// UsageRoutes: what was used, what it cost, prices and bills. Lists come as JSON, or with ?format=csv as CSV.
//
//   GET  /api/v1/admin/usage/records           ?enterprise&key&model&start_time&end_time&page&page_size
//   GET  /api/v1/admin/usage/summary           ?group_by&… : enterprise, key, model, type, status, hour, day,
//   week, month GET  /api/v1/admin/enterprises/{id}/usage  the same of one enterprise; group_by is "day" if
//   not given GET  /api/v1/me/usage                      of the caller's own enterprise GET
//   /api/v1/admin/price-plans, PUT and DELETE …/{name} GET  /api/v1/admin/bills                   ?enterprise
//   POST /api/v1/admin/bills                   {"enterprise", "time"}: of the period that holds the time
//   GET  /api/v1/admin/bills/{id}
#pragma once

#include <vector>

#include "base/clock.h"
#include "control/tenants.h"
#include "control/usage.h"
#include "gateway/json_routes.h"

namespace tessera::gateway {

class UsageRoutes final : public RouteGroup {
 public:
  // All references outlive it and what `work` still runs.
  UsageRoutes(control::Tenants& tenants, control::Usage& usage, Executor& work, const Clock& clock)
      : tenants_(tenants), usage_(usage), work_(work), clock_(clock) {}

  std::vector<Route> routes() override;

 private:
  using Query = api::ApiResult<control::UsageQuery>;
  // `enterprise`: an id or code that the query may not change; empty: what the query names, or all.
  Query read_query(const Call& call, std::string enterprise);
  net::HttpResponse records(const Call& call);
  net::HttpResponse summary(const Call& call, const std::string& enterprise, const std::string& group_by);
  JsonAnswer set_plan(const Call& call);
  JsonAnswer list_bills(const Call& call);
  JsonAnswer make_bill(const Call& call);

  control::Tenants& tenants_;
  control::Usage& usage_;
  Executor& work_;
  const Clock& clock_;
};

}  // namespace tessera::gateway
