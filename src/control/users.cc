#include "control/users.h"

#include <argon2.h>

#include <algorithm>

#include "base/secrets.h"
#include "base/sha256.h"
#include "store/transact.h"

namespace tessera::control {
namespace {

using store::Blob;
using store::integer_at;
using store::Row;
using store::Rows;
using store::Statements;
using store::text_at;

// One entry for each version of the schema; released ones never change.
const std::vector<std::string_view> kMigrations = {
    R"sql(
CREATE TABLE users (
  name TEXT PRIMARY KEY NOT NULL,
  role TEXT NOT NULL,
  password TEXT NOT NULL,
  disabled INTEGER NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE user_tokens (
  token_sha256 BLOB PRIMARY KEY NOT NULL,
  kind TEXT NOT NULL,
  user_name TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
  family TEXT NOT NULL,
  expires_ms INTEGER NOT NULL,
  used INTEGER NOT NULL
) STRICT;
CREATE INDEX user_tokens_of_family ON user_tokens (family);
CREATE INDEX user_tokens_of_user ON user_tokens (user_name);
)sql",
};

constexpr std::string_view kRefreshPrefix = "ref_";
// OWASP's least for argon2id: 19 MiB, two passes, one lane.
constexpr uint32_t kPasses = 2, kMemory_kib = 19 * 1024, kLanes = 1;
constexpr size_t kSaltBytes = 16, kHashBytes = 32, kTokenBytes = 32;
constexpr size_t kLongestPassword = 1024;

Result<std::string> hash_password(std::string_view password) {
  TESSERA_ASSIGN_OR_RETURN(const std::string salt, random_bytes(kSaltBytes));
  std::string encoded(argon2_encodedlen(kPasses, kMemory_kib, kLanes, kSaltBytes, kHashBytes, Argon2_id),
                      '\0');
  const int code =
      argon2id_hash_encoded(kPasses, kMemory_kib, kLanes, password.data(), password.size(), salt.data(),
                            salt.size(), kHashBytes, encoded.data(), encoded.size());
  if (code != ARGON2_OK) return internal_error(std::string("argon2id: ") + argon2_error_message(code));
  encoded.resize(std::char_traits<char>::length(encoded.c_str()));
  return encoded;
}

bool is_password(const std::string& encoded, std::string_view password) {
  return argon2id_verify(encoded.c_str(), password.data(), password.size()) == ARGON2_OK;
}

Status check_password(std::string_view password) {
  if (password.size() < Users::kLeastPassword || password.size() > kLongestPassword)
    return invalid_argument("a password has " + std::to_string(Users::kLeastPassword) + " to " +
                            std::to_string(kLongestPassword) + " bytes");
  return {};
}

Status check_role(const std::string& role) {
  if (role == "viewer" || role == "operator" || role == "admin") return {};
  return invalid_argument("a role is viewer, operator or admin");
}

Status check_name(const std::string& name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  if (name.empty() || name.size() > 64 || !std::all_of(name.begin(), name.end(), allowed))
    return invalid_argument("a user's name is 1 to 64 of a-z, 0-9, '.', '_' and '-'");
  return {};
}

Status denied(std::string why) {
  return {Code::kPermissionDenied, std::move(why)};
}

Blob hash_of(std::string_view token) {
  const Digest hash = sha256(as_bytes(token));
  return Blob(hash.begin(), hash.end());
}

User user_of(const Row& row, size_t first = 0) {
  return {text_at(row, first), text_at(row, first + 1), integer_at(row, first + 2) != 0,
          integer_at(row, first + 3)};
}
constexpr const char* kUserColumns = "u.name, u.role, u.disabled, u.created_ms";

Result<LoginTokens> add_tokens(Statements& sql, const User& user, const std::string& family, int64_t now_ms) {
  LoginTokens tokens;
  tokens.user = user;
  tokens.access_expires_unix_ms = now_ms + Users::kAccessLife_ms;
  tokens.refresh_expires_unix_ms = now_ms + Users::kRefreshLife_ms;
  TESSERA_ASSIGN_OR_RETURN(const std::string access, random_text(kTokenBytes));
  TESSERA_ASSIGN_OR_RETURN(const std::string refresh, random_text(kTokenBytes));
  tokens.access = std::string(Users::kAccessPrefix) + access;
  tokens.refresh = std::string(kRefreshPrefix) + refresh;
  const auto insert = [&](const std::string& token, const std::string& kind, int64_t expires_ms) {
    return sql
        .execute(
            "INSERT INTO user_tokens (token_sha256, kind, user_name, family, expires_ms, used) "
            "VALUES ($1, $2, $3, $4, $5, 0)",
            {hash_of(token), kind, user.name, family, expires_ms})
        .status();
  };
  TESSERA_RETURN_IF_ERROR(insert(tokens.access, "access", tokens.access_expires_unix_ms));
  TESSERA_RETURN_IF_ERROR(insert(tokens.refresh, "refresh", tokens.refresh_expires_unix_ms));
  return tokens;
}

}  // namespace

Result<std::unique_ptr<Users>> Users::open(store::Database& database, const Clock& clock) {
  TESSERA_RETURN_IF_ERROR(store::migrate(database, "users", kMigrations));
  auto users = std::unique_ptr<Users>(new Users(database, clock));
  TESSERA_ASSIGN_OR_RETURN(const std::string unguessable, random_text(kTokenBytes));
  TESSERA_ASSIGN_OR_RETURN(users->nobody_, hash_password(unguessable));
  return users;
}

Result<User> Users::add(const std::string& name, const std::string& role, std::string_view password) {
  TESSERA_RETURN_IF_ERROR(check_name(name));
  TESSERA_RETURN_IF_ERROR(check_role(role));
  TESSERA_RETURN_IF_ERROR(check_password(password));
  TESSERA_ASSIGN_OR_RETURN(const std::string hash, hash_password(password));
  const User user{name, role, false, clock_.unix_time_ms()};
  TESSERA_ASSIGN_OR_RETURN(const Rows added,
                           database_.execute("INSERT INTO users (name, role, password, disabled, created_ms) "
                                             "VALUES ($1, $2, $3, 0, $4) ON CONFLICT (name) DO NOTHING",
                                             {name, role, hash, user.created_unix_ms}));
  if (added.changed == 0) return invalid_argument("there is a user '" + name + "' already");
  return user;
}

Result<std::vector<User>> Users::list() {
  TESSERA_ASSIGN_OR_RETURN(const Rows rows, database_.execute("SELECT " + std::string(kUserColumns) +
                                                              " FROM users u ORDER BY u.name"));
  std::vector<User> users;
  for (const Row& row : rows.rows) users.push_back(user_of(row));
  return users;
}

Result<User> Users::change(const std::string& name, std::optional<std::string> role,
                           std::optional<std::string> password, std::optional<bool> disabled) {
  std::string hash;
  if (role) TESSERA_RETURN_IF_ERROR(check_role(*role));
  if (password) {
    TESSERA_RETURN_IF_ERROR(check_password(*password));
    TESSERA_ASSIGN_OR_RETURN(hash, hash_password(*password));
  }
  return store::transact<User>(database_, [&](Statements& sql) -> Result<User> {
    TESSERA_ASSIGN_OR_RETURN(const Rows found, sql.execute("SELECT " + std::string(kUserColumns) +
                                                               ", u.password FROM users u "
                                                               "WHERE u.name = $1",
                                                           {name}));
    if (found.rows.empty()) return not_found("there is no user '" + name + "'");
    User user = user_of(found.rows[0]);
    if (role) user.role = *role;
    if (disabled) user.disabled = *disabled;
    if (hash.empty()) hash = text_at(found.rows[0], 4);
    TESSERA_RETURN_IF_ERROR(
        sql.execute("UPDATE users SET role = $2, disabled = $3, password = $4 WHERE name = $1",
                    {name, user.role, int64_t{user.disabled}, hash})
            .status());
    TESSERA_RETURN_IF_ERROR(sql.execute("DELETE FROM user_tokens WHERE user_name = $1", {name}).status());
    return user;
  });
}

Status Users::remove(const std::string& name) {
  return database_.transaction([&](Statements& sql) -> Status {
    TESSERA_RETURN_IF_ERROR(sql.execute("DELETE FROM user_tokens WHERE user_name = $1", {name}).status());
    TESSERA_ASSIGN_OR_RETURN(const Rows gone, sql.execute("DELETE FROM users WHERE name = $1", {name}));
    return gone.changed > 0 ? Status() : not_found("there is no user '" + name + "'");
  });
}

Result<LoginTokens> Users::login(const std::string& name, std::string_view password) {
  TESSERA_ASSIGN_OR_RETURN(const Rows found, database_.execute("SELECT " + std::string(kUserColumns) +
                                                                   ", u.password FROM users u "
                                                                   "WHERE u.name = $1",
                                                               {name}));
  const bool known = !found.rows.empty();
  const bool right =
      is_password(known ? text_at(found.rows[0], 4) : nobody_, password.substr(0, kLongestPassword + 1));
  if (!known || !right || user_of(found.rows[0]).disabled)
    return denied("There is no such user, or the password is wrong.");
  TESSERA_ASSIGN_OR_RETURN(const std::string family, random_text(kSaltBytes));
  return store::transact<LoginTokens>(database_, [&](Statements& sql) {
    return add_tokens(sql, user_of(found.rows[0]), family, clock_.unix_time_ms());
  });
}

Result<LoginTokens> Users::refresh(std::string_view token) {
  const int64_t now_ms = clock_.unix_time_ms();
  bool stolen = false;
  auto tokens = store::transact<std::optional<LoginTokens>>(
      database_, [&](Statements& sql) -> Result<std::optional<LoginTokens>> {
        TESSERA_ASSIGN_OR_RETURN(
            const Rows found,
            sql.execute(
                "SELECT " + std::string(kUserColumns) +
                    ", t.family, t.used, t.expires_ms FROM user_tokens t "
                    "JOIN users u ON u.name = t.user_name WHERE t.token_sha256 = $1 AND t.kind = 'refresh'",
                {hash_of(token)}));
        if (found.rows.empty()) return std::optional<LoginTokens>();
        const Row& row = found.rows[0];
        const std::string family = text_at(row, 4);
        stolen = integer_at(row, 5) != 0;
        if (stolen) {
          TESSERA_RETURN_IF_ERROR(
              sql.execute("DELETE FROM user_tokens WHERE family = $1", {family}).status());
          return std::optional<LoginTokens>();
        }
        const User user = user_of(row);
        if (user.disabled || integer_at(row, 6) <= now_ms) return std::optional<LoginTokens>();
        // One of two that come at once finds it used.
        TESSERA_ASSIGN_OR_RETURN(
            const Rows used,
            sql.execute("UPDATE user_tokens SET used = 1 WHERE token_sha256 = $1 AND used = 0",
                        {hash_of(token)}));
        if (used.changed == 0) return std::optional<LoginTokens>();
        TESSERA_RETURN_IF_ERROR(
            sql.execute("DELETE FROM user_tokens WHERE family = $1 AND kind = 'access'", {family}).status());
        TESSERA_ASSIGN_OR_RETURN(LoginTokens made, add_tokens(sql, user, family, now_ms));
        return std::optional<LoginTokens>(std::move(made));
      });
  if (!tokens.ok()) return tokens.status();
  if (stolen) return denied("This refresh token was used before: the login has ended, log in again.");
  if (!tokens->has_value()) return denied("This refresh token is not known or has expired: log in again.");
  return std::move(**tokens);
}

Status Users::logout(std::string_view token) {
  return database_
      .execute(
          "DELETE FROM user_tokens WHERE family IN (SELECT family FROM user_tokens WHERE token_sha256 = $1)",
          {hash_of(token)})
      .status();
}

Result<std::optional<Users::Access>> Users::find_access(std::string_view token) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows found,
      database_.execute(
          "SELECT " + std::string(kUserColumns) +
              ", t.expires_ms FROM user_tokens t "
              "JOIN users u ON u.name = t.user_name WHERE t.token_sha256 = $1 AND t.kind = 'access'",
          {hash_of(token)}));
  if (found.rows.empty()) return std::optional<Access>();
  const Access access{user_of(found.rows[0]), integer_at(found.rows[0], 4)};
  if (access.user.disabled || access.expires_unix_ms <= clock_.unix_time_ms()) return std::optional<Access>();
  return std::optional<Access>(access);
}

Status Users::forget_expired() {
  return database_.execute("DELETE FROM user_tokens WHERE expires_ms <= $1", {clock_.unix_time_ms()})
      .status();
}

}  // namespace tessera::control
