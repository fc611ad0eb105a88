#include "app/control_plane.h"

#include "app/gateway_file.h"
#include "base/config.h"
#include "obs/log.h"
#include "store/sqlite_database.h"

namespace tessera::app {
namespace {

constexpr std::chrono::minutes kHousekeeping{10};

}  // namespace

Result<std::unique_ptr<ControlPlane>> ControlPlane::open(const HttpOptions& options,
                                                         store::Database* database, store::State* state) {
  auto plane = std::unique_ptr<ControlPlane>(new ControlPlane);
  ControlPlane& p = *plane;
  if (database == nullptr) {
    const auto file = std::filesystem::path(tessera_home()) / "state" / "tessera.db";
    TESSERA_ASSIGN_OR_RETURN(p.own_database_, store::open_sqlite(file));
    database = p.own_database_.get();
  }
  p.database_ = database;
  p.state_ =
      state == nullptr ? store::make_memory_state(p.clock_) : store::make_fallback_state(*state, p.clock_);
  TESSERA_ASSIGN_OR_RETURN(p.admin_key_, keep_admin_key());
  TESSERA_ASSIGN_OR_RETURN(p.tenants_, control::Tenants::open(*database, p.clock_));
  TESSERA_ASSIGN_OR_RETURN(p.usage_, control::Usage::open(*database, p.clock_));
  TESSERA_ASSIGN_OR_RETURN(p.users_, control::Users::open(*database, p.clock_));
  TESSERA_ASSIGN_OR_RETURN(p.audit_, control::Audit::open(*database, p.clock_));
  p.lockout_ = std::make_unique<control::Lockout>(*p.state_);
  p.quotas_ = std::make_unique<control::Quotas>(*p.state_, p.clock_);
  p.lookup_ = make_thread_executor("keys");
  p.metering_ = make_thread_executor("usage");
  p.work_ = make_thread_executor("admin");
  gateway::KeyAuthenticatorOptions keys;
  keys.admin_keys = options.api_keys;
  keys.admin_keys.push_back(p.admin_key_);
  keys.key_required = options.require_key || !options.api_keys.empty();
  p.authenticator_ = std::make_unique<gateway::KeyAuthenticator>(
      std::move(keys), gateway::KeyAuthenticator::Sources{*p.tenants_, *p.users_, *p.lockout_, *p.state_},
      *p.lookup_, p.clock_);
  p.meter_ = std::make_unique<gateway::UsageMeter>(*p.usage_, *p.metering_, p.clock_);
  p.admission_ = std::make_unique<gateway::Admission>(*p.quotas_, *p.tenants_, *p.usage_, *p.meter_,
                                                      *p.lookup_, p.clock_);
  p.tenant_routes_ = std::make_unique<gateway::TenantRoutes>(*p.tenants_, *p.work_, p.clock_, [&p] {
    p.authenticator_->forget();
    p.admission_->forget();
  });
  p.usage_routes_ = std::make_unique<gateway::UsageRoutes>(*p.tenants_, *p.usage_, *p.work_, p.clock_);
  p.trail_ = std::make_unique<gateway::AuditTrail>(*p.audit_, *p.work_);
  p.login_routes_ = std::make_unique<gateway::LoginRoutes>(
      *p.users_, *p.lockout_, *p.audit_, *p.work_, p.clock_,
      [authenticator = p.authenticator_.get()] { authenticator->forget(); });
  p.metering_->post([&p] { p.keep_house(); });
  return plane;
}

ControlPlane::~ControlPlane() {
  for (Executor* executor : {lookup_.get(), metering_.get(), work_.get()})
    if (executor != nullptr) executor->stop();
}

// What time brings: bills of finished periods, logins that have expired.
void ControlPlane::keep_house() {
  if (Status status = users_->forget_expired(); !status.ok())
    obs::log_warn("users", "expired logins could not be removed", {{"error", status.message()}});
  if (Status status = usage_->make_due_bills(); !status.ok())
    obs::log_warn("usage", "bills could not be made; it is tried again", {{"error", status.message()}});
  metering_->post_after(kHousekeeping, [this] { keep_house(); });
}

void ControlPlane::settle() {
  for (Executor* executor : {lookup_.get(), work_.get(), metering_.get()}) drain(*executor);
  if (Status status = meter_->flush(); !status.ok())
    obs::log_error("usage", "usage is lost: it could not be written",
                   {{"records", static_cast<int64_t>(meter_->pending())}, {"error", status.message()}});
}

}  // namespace tessera::app
