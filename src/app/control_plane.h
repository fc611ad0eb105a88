// The control plane over HTTP, as `serve` and `gateway` have it: who may come in, tenants and their keys, and
// the routes that administer them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/http_service.h"
#include "base/clock.h"
#include "base/executor.h"
#include "control/tenants.h"
#include "gateway/key_authenticator.h"
#include "gateway/tenant_routes.h"
#include "store/database.h"

namespace tessera::app {

// Outlives the HTTP server.
class ControlPlane {
 public:
  // `database`: the one that the cluster's gateway opened; null: opens $TESSERA_HOME/state/tessera.db.
  static Result<std::unique_ptr<ControlPlane>> open(const HttpOptions& options, store::Database* database);

  gateway::Authenticator& authenticator() { return *authenticator_; }
  std::vector<gateway::RouteGroup*> groups() { return {tenant_routes_.get()}; }
  store::Database& database() { return *database_; }
  // Opens everything; lies in the state folder for the verbs that administer this gateway.
  const std::string& admin_key() const { return admin_key_; }
  // Returns when no request is in the control plane's hands any more; after the connections are gone.
  void settle();

 private:
  ControlPlane() = default;

  SystemClock clock_;
  std::unique_ptr<store::Database> own_database_;
  store::Database* database_ = nullptr;
  std::string admin_key_;
  std::unique_ptr<control::Tenants> tenants_;
  std::unique_ptr<gateway::KeyAuthenticator> authenticator_;
  std::unique_ptr<gateway::TenantRoutes> tenant_routes_;
  // May wait for the disk. They end before what they touch.
  std::unique_ptr<Executor> lookup_ = nullptr;
  std::unique_ptr<Executor> work_ = nullptr;
};

}  // namespace tessera::app
