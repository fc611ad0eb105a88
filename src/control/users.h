// People who administer: names, roles, passwords (argon2id), and the tokens that a login gives.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "store/database.h"

namespace tessera::control {

struct User {
  std::string name;
  std::string role;  // "viewer", "operator" or "admin"
  bool disabled = false;
  int64_t created_unix_ms = 0;
};

struct LoginTokens {
  std::string access;   // "tok_…", for requests
  std::string refresh;  // "ref_…", for the next pair; works once
  int64_t access_expires_unix_ms = 0;
  int64_t refresh_expires_unix_ms = 0;
  User user;
};

// Thread-safe, also between processes that share the database. Checking a password takes tens of
// milliseconds and 19 MiB, by intention. Of passwords and tokens only hashes are stored. Database and clock
// outlive it.
class Users {
 public:
  static constexpr std::string_view kAccessPrefix = "tok_";
  static constexpr int64_t kAccessLife_ms = 3600 * 1000;
  static constexpr int64_t kRefreshLife_ms = int64_t{30} * 24 * 3600 * 1000;
  static constexpr size_t kLeastPassword = 10;

  static Result<std::unique_ptr<Users>> open(store::Database& database, const Clock& clock);

  // InvalidArgument: the name is taken or no name ([a-z0-9._-], 64 at most), no such role, a short password.
  Result<User> add(const std::string& name, const std::string& role, std::string_view password);
  Result<std::vector<User>> list();
  // What is given changes; a new password, a new role or disabling ends the user's logins.
  Result<User> change(const std::string& name, std::optional<std::string> role,
                      std::optional<std::string> password, std::optional<bool> disabled);
  Status remove(const std::string& name);

  // PermissionDenied, in the same time: no such user, disabled, the wrong password.
  Result<LoginTokens> login(const std::string& name, std::string_view password);
  // A refresh token that comes a second time was stolen, from its owner or by him: all that came of that
  // login ends. PermissionDenied.
  Result<LoginTokens> refresh(std::string_view refresh_token);
  // Ends the login that the access token came of.
  Status logout(std::string_view access_token);
  struct Access {
    User user;
    int64_t expires_unix_ms = 0;
  };
  Result<std::optional<Access>> find_access(std::string_view access_token);  // nullopt: unknown or over
  Status forget_expired();

 private:
  Users(store::Database& database, const Clock& clock) : database_(database), clock_(clock) {}
  store::Database& database_;
  const Clock& clock_;
  std::string nobody_;  // a hash to check where there is no user
};

}  // namespace tessera::control
