// Tenants share no cached prefixes: how fast an answer comes would tell what others have asked.
#pragma once

#include <string>

#include "api/caller.h"

namespace tessera::api {

// What a request's own salt becomes.
inline std::string tenant_salt(const std::string& tenant, const std::string& salt) {
  return tenant == kDefaultTenant ? salt : tenant + "/" + salt;
}

}  // namespace tessera::api
