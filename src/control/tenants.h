// Who may use the cluster over HTTP, and how much: enterprises (the tenants) and their API keys, kept in the
// database. Of a key only its SHA-256 is stored.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/sha256.h"
#include "base/status.h"
#include "store/database.h"

namespace tessera::control {

// Money is in billionths of the currency's unit, so that sums are exact.
constexpr int64_t kNano = 1'000'000'000;

// The tenant of everybody who comes without a key of an enterprise; made with the tables.
constexpr std::string_view kDefaultEnterprise = "default";

struct EnterpriseProfile {
  std::string name;
  std::string code;  // short name for people and scripts, unique; [a-z0-9-]
  std::string contact_name, contact_email, contact_phone;
  std::string billing_email;
  std::string billing_period = "monthly";  // or "weekly"
  int64_t monthly_budget = 0;              // nano; 0: none. A month of UTC
  int64_t credit_balance = 0;              // nano; usage debits it
  bool prepaid = false;                    // without credit nothing is answered
  std::string plan;                        // name of a price plan; empty: the default prices
  std::string custom_pricing = "{}";       // JSON: usage type → price, before the plan's
  int64_t data_retention_days = 30;
  bool allow_logging = false;
  bool anonymize_data = true;
  bool is_active = true;
  // Of all its keys together; 0: no limit.
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  int64_t max_concurrent = 0;
  int64_t weight = 1;  // its share where tenants wait for each other
};

struct Enterprise {
  std::string id;
  EnterpriseProfile profile;
  int64_t created_unix_ms = 0;
  int64_t updated_unix_ms = 0;
};

struct ApiKeyTerms {
  std::string name;                    // for people
  std::vector<std::string> models;     // that it may use; empty: all
  std::vector<std::string> types;      // likewise
  std::vector<std::string> addresses;  // networks that it may come from; empty: all
  int64_t requests_per_minute = 0;     // 0: no limit
  int64_t tokens_per_minute = 0;
  int64_t requests_per_day = 0;
  int64_t max_concurrent = 0;
  int64_t expires_unix_ms = 0;     // 0: never
  bool require_signature = false;  // the secret itself opens nothing: requests must be signed with it
};

struct ApiKey {
  std::string id;
  std::string enterprise;
  std::string prefix;  // how the secret begins: tells keys apart without giving them away
  ApiKeyTerms terms;
  int64_t created_unix_ms = 0;
  int64_t rotated_unix_ms = 0;  // 0: never
  int64_t revoked_unix_ms = 0;  // 0: not
};

// A key just made or rotated. The secret is shown here and never again.
struct NewApiKey {
  ApiKey key;
  std::string secret;
};

// What a secret opens.
struct KnownKey {
  ApiKey key;
  Enterprise enterprise;
  int64_t secret_expires_unix_ms = 0;  // of a secret that was rotated away; 0: never
};

// A key by its id, for requests that are signed: the SHA-256 of each secret that works now.
struct SigningKey {
  KnownKey known;
  std::vector<Digest> secrets;
};

// Thread-safe, also between processes that share the database: every function is one transaction. Whether a
// known key may be used now is the caller's to judge. kNotFound: no such enterprise or key;
// kInvalidArgument: a value that cannot be, or a code that is taken. Database and clock outlive it.
class Tenants {
 public:
  static constexpr std::string_view kSecretPrefix = "ent_";
  static constexpr int64_t kLongestGrace_s = 7 * 24 * 3600;

  // Makes or migrates its tables.
  static Result<std::unique_ptr<Tenants>> open(store::Database& database, const Clock& clock);

  Result<Enterprise> create_enterprise(const EnterpriseProfile& profile);
  // All but the credit, which usage debits meanwhile: that only where `credit_balance` says.
  Result<Enterprise> update_enterprise(const std::string& id_or_code, const EnterpriseProfile& profile,
                                       std::optional<int64_t> credit_balance = {});
  Result<Enterprise> find_enterprise(const std::string& id_or_code);
  Result<std::vector<Enterprise>> list_enterprises();  // by name

  Result<NewApiKey> create_key(const std::string& enterprise, const ApiKeyTerms& terms);
  // A new secret for the same key; the old one works for `grace_s` more.
  Result<NewApiKey> rotate_key(const std::string& enterprise, const std::string& key, int64_t grace_s);
  Status revoke_key(const std::string& enterprise, const std::string& key);
  // Newest first, revoked ones included; of all enterprises if that is empty.
  Result<std::vector<ApiKey>> list_keys(const std::string& enterprise);
  // nullopt: nobody's, or rotated away.
  Result<std::optional<KnownKey>> find_secret(std::string_view secret);
  Result<std::optional<SigningKey>> find_signing_key(const std::string& id);

 private:
  Tenants(store::Database& database, const Clock& clock) : database_(database), clock_(clock) {}
  store::Database& database_;
  const Clock& clock_;
};

}  // namespace tessera::control
