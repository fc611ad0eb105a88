#include "app/control_plane.h"

#include "app/gateway_file.h"
#include "base/config.h"
#include "store/sqlite_database.h"

namespace tessera::app {

Result<std::unique_ptr<ControlPlane>> ControlPlane::open(const HttpOptions& options,
                                                         store::Database* database) {
  auto plane = std::unique_ptr<ControlPlane>(new ControlPlane);
  if (database == nullptr) {
    const auto file = std::filesystem::path(tessera_home()) / "state" / "tessera.db";
    TESSERA_ASSIGN_OR_RETURN(plane->own_database_, store::open_sqlite(file));
    database = plane->own_database_.get();
  }
  plane->database_ = database;
  TESSERA_ASSIGN_OR_RETURN(plane->admin_key_, keep_admin_key());
  TESSERA_ASSIGN_OR_RETURN(plane->tenants_, control::Tenants::open(*database, plane->clock_));
  plane->lookup_ = make_thread_executor("keys");
  plane->work_ = make_thread_executor("admin");
  gateway::KeyAuthenticatorOptions keys;
  keys.admin_keys = options.api_keys;
  keys.admin_keys.push_back(plane->admin_key_);
  keys.key_required = options.require_key || !options.api_keys.empty();
  plane->authenticator_ = std::make_unique<gateway::KeyAuthenticator>(std::move(keys), *plane->tenants_,
                                                                      *plane->lookup_, plane->clock_);
  plane->tenant_routes_ = std::make_unique<gateway::TenantRoutes>(
      *plane->tenants_, *plane->work_, plane->clock_,
      [authenticator = plane->authenticator_.get()] { authenticator->forget(); });
  return plane;
}

void ControlPlane::settle() {
  drain(*lookup_);
  drain(*work_);
}

}  // namespace tessera::app
