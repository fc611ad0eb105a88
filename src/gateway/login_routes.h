// LoginRoutes: people who administer, their logins, and the audit log.
//
//   POST   /api/v1/auth/login      {"username", "password"} → access_token, refresh_token, expires_in, role
//   POST   /api/v1/auth/refresh    {"refresh_token"} → the next pair
//   POST   /api/v1/auth/logout     ends the login that the access token came of
//   GET, POST   /api/v1/admin/users           {"username", "role", "password"}
//   PUT, DELETE /api/v1/admin/users/{name}    {"role", "password", "disabled"}
//   GET    /api/v1/admin/audit     ?page&page_size
//   GET    /api/v1/admin/audit/verify
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "control/audit.h"
#include "control/lockout.h"
#include "control/users.h"
#include "gateway/json_routes.h"

namespace tessera::gateway {

class LoginRoutes final : public RouteGroup {
 public:
  // `changed` is called after every change of users or logins. All references outlive it and what `work`
  // still runs.
  LoginRoutes(control::Users& users, control::Lockout& lockout, control::Audit& audit, Executor& work,
              const Clock& clock, std::function<void()> changed)
      : users_(users),
        lockout_(lockout),
        audit_(audit),
        work_(work),
        clock_(clock),
        changed_(std::move(changed)) {}

  std::vector<Route> routes() override;

 private:
  JsonAnswer login(const Call& call);
  JsonAnswer refresh(const Call& call);
  JsonAnswer logout(const Call& call);
  JsonAnswer list_users();
  JsonAnswer add_user(const Call& call);
  JsonAnswer change_user(const Call& call);
  JsonAnswer remove_user(const Call& call);
  JsonAnswer entries(const Call& call);
  JsonAnswer verify();
  Route login_route(std::string path, std::function<JsonAnswer(const Call&)> run);

  control::Users& users_;
  control::Lockout& lockout_;
  control::Audit& audit_;
  Executor& work_;
  const Clock& clock_;
  const std::function<void()> changed_;
  std::atomic<int> pending_{0};  // logins: each costs memory and time, by intention
};

}  // namespace tessera::gateway
