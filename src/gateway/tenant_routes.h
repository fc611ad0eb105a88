// TenantRoutes: enterprises and their API keys.
//
//   GET, POST  /api/v1/admin/enterprises
//   GET, PUT   /api/v1/admin/enterprises/{id}                          the id or the code
//   GET, POST  /api/v1/admin/enterprises/{id}/api-keys                 the answer to POST alone holds
//   "api_key" DELETE     /api/v1/admin/enterprises/{id}/api-keys/{key} POST
//   /api/v1/admin/enterprises/{id}/api-keys/{key}/rotate    {"grace_seconds": N} GET /api/v1/admin/api-keys
//   of all enterprises GET        /api/v1/me                                              the caller's own
//   key and limits
#pragma once

#include <functional>
#include <vector>

#include "base/clock.h"
#include "control/tenants.h"
#include "gateway/json_routes.h"

namespace tessera::gateway {

Json enterprise_json(const control::Enterprise& enterprise);

class TenantRoutes final : public RouteGroup {
 public:
  // `changed` is called after every change. All references outlive it and what `work` still runs.
  TenantRoutes(control::Tenants& tenants, Executor& work, const Clock& clock, std::function<void()> changed)
      : tenants_(tenants), work_(work), clock_(clock), changed_(std::move(changed)) {}

  std::vector<Route> routes() override;

 private:
  JsonAnswer list_enterprises();
  JsonAnswer create_enterprise(const Call& call);
  JsonAnswer update_enterprise(const Call& call);
  JsonAnswer list_keys(const std::string& enterprise);
  JsonAnswer create_key(const Call& call);
  JsonAnswer rotate_key(const Call& call);
  JsonAnswer revoke_key(const Call& call);
  JsonAnswer me(const Call& call);

  control::Tenants& tenants_;
  Executor& work_;
  const Clock& clock_;
  const std::function<void()> changed_;
};

}  // namespace tessera::gateway
