// The control plane over HTTP, as `serve` and `gateway` have it: who may come in, tenants and their keys, and
// the routes that administer them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/http_service.h"
#include "base/clock.h"
#include "base/executor.h"
#include "control/audit.h"
#include "control/lockout.h"
#include "control/quotas.h"
#include "control/tenants.h"
#include "control/usage.h"
#include "control/users.h"
#include "gateway/admission.h"
#include "gateway/audit_trail.h"
#include "gateway/key_authenticator.h"
#include "gateway/login_routes.h"
#include "gateway/tenant_routes.h"
#include "gateway/usage_meter.h"
#include "gateway/usage_routes.h"
#include "store/database.h"
#include "store/state.h"

namespace tessera::app {

// Outlives the HTTP server.
class ControlPlane {
 public:
  // `database`: the one that the cluster's gateway opened; null: opens $TESSERA_HOME/state/tessera.db.
  // `state`: what several gateways share limits in; while it is away, and if null, they are this process's
  // own.
  static Result<std::unique_ptr<ControlPlane>> open(const HttpOptions& options, store::Database* database,
                                                    store::State* state);

  ~ControlPlane();
  gateway::Authenticator& authenticator() { return *authenticator_; }
  std::vector<gateway::RouteGroup*> groups() {
    return {tenant_routes_.get(), usage_routes_.get(), login_routes_.get()};
  }
  gateway::Admission& admission() { return *admission_; }
  gateway::AuditTrail& audit() { return *trail_; }
  store::Database& database() { return *database_; }
  // Opens everything; lies in the state folder for the verbs that administer this gateway.
  const std::string& admin_key() const { return admin_key_; }
  // Returns when nothing that was asked before is in the control plane's hands any more, and usage is
  // written.
  void settle();

 private:
  ControlPlane() = default;
  void keep_house();

  SystemClock clock_;
  std::unique_ptr<store::Database> own_database_;
  store::Database* database_ = nullptr;
  std::unique_ptr<store::State> state_;
  std::string admin_key_;
  std::unique_ptr<control::Tenants> tenants_;
  std::unique_ptr<gateway::KeyAuthenticator> authenticator_;
  std::unique_ptr<gateway::TenantRoutes> tenant_routes_;
  std::unique_ptr<control::Usage> usage_;
  std::unique_ptr<control::Quotas> quotas_;
  std::unique_ptr<control::Users> users_;
  std::unique_ptr<control::Lockout> lockout_;
  std::unique_ptr<control::Audit> audit_;
  // They may wait for disk and network, and end before what they touch: the first for callers and admission,
  // the second for usage, the third for people.
  std::unique_ptr<Executor> lookup_, metering_, work_;
  std::unique_ptr<gateway::UsageMeter> meter_;
  std::unique_ptr<gateway::Admission> admission_;
  std::unique_ptr<gateway::UsageRoutes> usage_routes_;
  std::unique_ptr<gateway::AuditTrail> trail_;
  std::unique_ptr<gateway::LoginRoutes> login_routes_;
};

}  // namespace tessera::app
