// Who a request comes from and what they may do: decided once, by the gateway's authenticator, and handed to
// whatever answers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::api {

// Each may do what those before it may.
enum class Role {
  kClient,    // asks models and creates jobs, for its own tenant
  kViewer,    // reads everything that is administered
  kOperator,  // runs the cluster: models, workers, join tokens
  kAdmin      // tenants, keys, prices, logins
};
constexpr const char* kRoleNames[] = {"client", "viewer", "operator", "admin"};
inline const char* role_name(Role role) {
  return kRoleNames[static_cast<size_t>(role)];
}

constexpr std::string_view kDefaultTenant = "default";
// What a request is, for a key's scope: everything that a language model answers.
constexpr std::string_view kTextType = "llm";

// What one key may use up; 0: no limit.
struct KeyLimits {
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;  // of prompt and answer
  int64_t requests_per_day = 0;   // a day of UTC
  int64_t concurrent = 0;         // requests at a time
};

// Immutable once made; shared by the requests of its key.
struct Caller {
  std::string tenant = std::string(kDefaultTenant);
  std::string key;  // names the key, or the login, in records; empty: nobody asked for one
  Role role = Role::kClient;
  std::vector<std::string> models;  // that it may use; empty: all
  std::vector<std::string> types;   // likewise: "llm", "image_gen", …
  KeyLimits limits;
  KeyLimits tenant_limits;  // of all the tenant's keys together
  int64_t weight = 1;       // the tenant's share where tenants wait for each other

  bool may_use_model(std::string_view model) const { return models.empty() || contains(models, model); }
  bool may_use_type(std::string_view type) const { return types.empty() || contains(types, type); }

 private:
  static bool contains(const std::vector<std::string>& list, std::string_view item) {
    return std::find(list.begin(), list.end(), item) != list.end();
  }
};
using CallerPtr = std::shared_ptr<const Caller>;

}  // namespace tessera::api
