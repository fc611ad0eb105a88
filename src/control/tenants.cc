#include "control/tenants.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/secrets.h"
#include "base/sha256.h"
#include "control/addresses.h"
#include "control/pricing.h"
#include "store/transact.h"

namespace tessera::control {
namespace {

using store::Blob;
using store::integer_at;
using store::Row;
using store::Rows;
using store::Statements;
using store::text_at;
using store::Value;

// One entry for each version of the schema; released ones never change.
const std::vector<std::string_view> kMigrations = {
    R"sql(
CREATE TABLE enterprises (
  id TEXT PRIMARY KEY NOT NULL,
  code TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  contact_name TEXT NOT NULL,
  contact_email TEXT NOT NULL,
  contact_phone TEXT NOT NULL,
  billing_email TEXT NOT NULL,
  billing_period TEXT NOT NULL,
  monthly_budget INTEGER NOT NULL,
  credit_balance INTEGER NOT NULL,
  prepaid INTEGER NOT NULL,
  plan TEXT NOT NULL,
  custom_pricing TEXT NOT NULL,
  data_retention_days INTEGER NOT NULL,
  allow_logging INTEGER NOT NULL,
  anonymize_data INTEGER NOT NULL,
  is_active INTEGER NOT NULL,
  requests_per_minute INTEGER NOT NULL,
  tokens_per_minute INTEGER NOT NULL,
  max_concurrent INTEGER NOT NULL,
  weight INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE api_keys (
  id TEXT PRIMARY KEY NOT NULL,
  enterprise_id TEXT NOT NULL REFERENCES enterprises (id),
  prefix TEXT NOT NULL,
  name TEXT NOT NULL,
  models TEXT NOT NULL,
  types TEXT NOT NULL,
  addresses TEXT NOT NULL,
  requests_per_minute INTEGER NOT NULL,
  tokens_per_minute INTEGER NOT NULL,
  requests_per_day INTEGER NOT NULL,
  max_concurrent INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  rotated_ms INTEGER NOT NULL,
  revoked_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX api_keys_of_enterprise ON api_keys (enterprise_id, created_ms);
CREATE TABLE api_key_secrets (
  secret_sha256 BLOB PRIMARY KEY NOT NULL,
  key_id TEXT NOT NULL REFERENCES api_keys (id),
  expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX api_key_secrets_of_key ON api_key_secrets (key_id);
)sql",
    "ALTER TABLE api_keys ADD COLUMN require_signature INTEGER NOT NULL DEFAULT 0",
};

constexpr const char* kEnterpriseColumns =
    "e.id, e.code, e.name, e.contact_name, e.contact_email, e.contact_phone, e.billing_email, "
    "e.billing_period, e.monthly_budget, e.credit_balance, e.prepaid, e.plan, e.custom_pricing, "
    "e.data_retention_days, e.allow_logging, e.anonymize_data, e.is_active, e.requests_per_minute, "
    "e.tokens_per_minute, e.max_concurrent, e.weight, e.created_ms, e.updated_ms";
constexpr size_t kEnterpriseColumnCount = 23;
constexpr const char* kKeyColumns =
    "k.id, k.enterprise_id, k.prefix, k.name, k.models, k.types, k.addresses, k.requests_per_minute, "
    "k.tokens_per_minute, k.requests_per_day, k.max_concurrent, k.expires_ms, k.created_ms, k.rotated_ms, "
    "k.revoked_ms, k.require_signature";
constexpr size_t kKeyColumnCount = 16;

constexpr size_t kIdBytes = 9;  // 12 characters
constexpr size_t kSecretBytes = 32;
constexpr size_t kShownPrefix = 10;
constexpr size_t kLongestText = 256;
constexpr int64_t kMostMoney = int64_t{1'000'000'000} * kNano;

Enterprise enterprise_of(const Row& row, size_t first = 0) {
  size_t i = first;
  const auto text = [&] { return text_at(row, i++); };
  const auto integer = [&] { return integer_at(row, i++); };
  Enterprise e;
  EnterpriseProfile& p = e.profile;
  e.id = text();
  p.code = text();
  p.name = text();
  p.contact_name = text();
  p.contact_email = text();
  p.contact_phone = text();
  p.billing_email = text();
  p.billing_period = text();
  p.monthly_budget = integer();
  p.credit_balance = integer();
  p.prepaid = integer() != 0;
  p.plan = text();
  p.custom_pricing = text();
  p.data_retention_days = integer();
  p.allow_logging = integer() != 0;
  p.anonymize_data = integer() != 0;
  p.is_active = integer() != 0;
  p.requests_per_minute = integer();
  p.tokens_per_minute = integer();
  p.max_concurrent = integer();
  p.weight = integer();
  e.created_unix_ms = integer();
  e.updated_unix_ms = integer();
  return e;
}

// In the order of the table's columns.
std::vector<Value> values_of(const Enterprise& e) {
  const EnterpriseProfile& p = e.profile;
  const auto flag = [](bool value) { return Value(int64_t{value}); };
  return {e.id,
          p.code,
          p.name,
          p.contact_name,
          p.contact_email,
          p.contact_phone,
          p.billing_email,
          p.billing_period,
          p.monthly_budget,
          p.credit_balance,
          flag(p.prepaid),
          p.plan,
          p.custom_pricing,
          p.data_retention_days,
          flag(p.allow_logging),
          flag(p.anonymize_data),
          flag(p.is_active),
          p.requests_per_minute,
          p.tokens_per_minute,
          p.max_concurrent,
          p.weight,
          e.created_unix_ms,
          e.updated_unix_ms};
}

std::string list_text(const std::vector<std::string>& list) {
  return dump_json(Json(list));
}
std::vector<std::string> list_of(const std::string& text) {
  std::vector<std::string> list;
  const Result<Json> json = parse_json(text);
  if (!json.ok() || !json->is_array()) return list;
  for (const Json& item : *json)
    if (item.is_string()) list.push_back(item.get<std::string>());
  return list;
}

ApiKey key_of(const Row& row) {
  size_t i = 0;
  const auto text = [&] { return text_at(row, i++); };
  const auto integer = [&] { return integer_at(row, i++); };
  ApiKey key;
  key.id = text();
  key.enterprise = text();
  key.prefix = text();
  key.terms.name = text();
  key.terms.models = list_of(text());
  key.terms.types = list_of(text());
  key.terms.addresses = list_of(text());
  key.terms.requests_per_minute = integer();
  key.terms.tokens_per_minute = integer();
  key.terms.requests_per_day = integer();
  key.terms.max_concurrent = integer();
  key.terms.expires_unix_ms = integer();
  key.created_unix_ms = integer();
  key.rotated_unix_ms = integer();
  key.revoked_unix_ms = integer();
  key.terms.require_signature = integer() != 0;
  return key;
}

std::string placeholders(size_t count) {
  std::string text;
  for (size_t i = 1; i <= count; ++i) text += (i > 1 ? ", $" : "$") + std::to_string(i);
  return text;
}

Status check_code(const std::string& code) {
  const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  if (code.empty() || code.size() > 64 || !std::all_of(code.begin(), code.end(), allowed))
    return invalid_argument("'code' is 1 to 64 of a-z, 0-9 and '-'");
  return {};
}

Status check(const EnterpriseProfile& p) {
  TESSERA_RETURN_IF_ERROR(check_code(p.code));
  if (p.name.empty()) return invalid_argument("'name' says what the enterprise is called");
  for (const std::string* text :
       {&p.name, &p.contact_name, &p.contact_email, &p.contact_phone, &p.billing_email, &p.plan})
    if (text->size() > kLongestText)
      return invalid_argument("a text has " + std::to_string(kLongestText) + " bytes at most");
  if (p.billing_period != "monthly" && p.billing_period != "weekly")
    return invalid_argument("'billing_period' is monthly or weekly");
  TESSERA_RETURN_IF_ERROR(PriceList::parse(p.custom_pricing).status());
  if (p.monthly_budget < 0 || p.monthly_budget > kMostMoney)
    return invalid_argument("'monthly_budget' is between 0 and a billion");
  if (p.data_retention_days < 7 || p.data_retention_days > 365)
    return invalid_argument("'data_retention_days' is between 7 and 365");
  if (p.weight < 1 || p.weight > 1000) return invalid_argument("'weight' is between 1 and 1000");
  for (const int64_t limit : {p.requests_per_minute, p.tokens_per_minute, p.max_concurrent})
    if (limit < 0) return invalid_argument("a limit is 0 (none) or more");
  return {};
}

Status check(const ApiKeyTerms& t) {
  if (t.name.size() > kLongestText)
    return invalid_argument("'name' has " + std::to_string(kLongestText) + " bytes at most");
  for (const auto* list : {&t.models, &t.types, &t.addresses}) {
    if (list->size() > 256) return invalid_argument("a list has 256 entries at most");
    for (const std::string& item : *list)
      if (item.empty() || item.size() > kLongestText)
        return invalid_argument("an entry is empty or too long");
  }
  TESSERA_RETURN_IF_ERROR(AddressSet::parse(t.addresses).status());
  for (const int64_t limit :
       {t.requests_per_minute, t.tokens_per_minute, t.requests_per_day, t.max_concurrent, t.expires_unix_ms})
    if (limit < 0) return invalid_argument("a limit is 0 (none) or more");
  return {};
}

Result<std::string> draw_id(std::string_view prefix) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, random_text(kIdBytes));
  return std::string(prefix) + text;
}

Result<Enterprise> look_up(Statements& sql, const std::string& id_or_code) {
  TESSERA_ASSIGN_OR_RETURN(const Rows found,
                           sql.execute("SELECT " + std::string(kEnterpriseColumns) +
                                           " FROM enterprises e WHERE e.id = $1 OR e.code = $1",
                                       {id_or_code}));
  if (found.rows.empty()) return not_found("there is no enterprise '" + id_or_code + "'");
  return enterprise_of(found.rows[0]);
}

Result<ApiKey> look_up_key(Statements& sql, const std::string& enterprise, const std::string& id) {
  TESSERA_ASSIGN_OR_RETURN(const Enterprise owner, look_up(sql, enterprise));
  TESSERA_ASSIGN_OR_RETURN(const Rows found,
                           sql.execute("SELECT " + std::string(kKeyColumns) +
                                           " FROM api_keys k WHERE k.id = $1 AND k.enterprise_id = $2",
                                       {id, owner.id}));
  if (found.rows.empty()) return not_found("'" + owner.profile.code + "' has no key '" + id + "'");
  return key_of(found.rows[0]);
}

Status insert_enterprise(Statements& sql, const Enterprise& enterprise) {
  TESSERA_ASSIGN_OR_RETURN(const Rows added,
                           sql.execute("INSERT INTO enterprises VALUES (" +
                                           placeholders(kEnterpriseColumnCount) + ") ON CONFLICT DO NOTHING",
                                       values_of(enterprise)));
  if (added.changed == 0)
    return invalid_argument("the code '" + enterprise.profile.code + "' is taken by another enterprise");
  return {};
}

// A fresh secret for the key, which takes its prefix.
Result<std::string> add_secret(Statements& sql, ApiKey& key) {
  TESSERA_ASSIGN_OR_RETURN(const std::string drawn, random_text(kSecretBytes));
  const std::string secret = std::string(Tenants::kSecretPrefix) + drawn;
  const Digest hash = sha256(as_bytes(secret));
  key.prefix = secret.substr(0, kShownPrefix);
  TESSERA_RETURN_IF_ERROR(
      sql.execute("INSERT INTO api_key_secrets (secret_sha256, key_id, expires_ms) VALUES ($1, $2, 0)",
                  {Blob(hash.begin(), hash.end()), key.id})
          .status());
  return secret;
}

}  // namespace

Result<std::unique_ptr<Tenants>> Tenants::open(store::Database& database, const Clock& clock) {
  TESSERA_RETURN_IF_ERROR(store::migrate(database, "tenants", kMigrations));
  Enterprise everybody;
  everybody.id = everybody.profile.code = kDefaultEnterprise;
  everybody.profile.name = "Default";
  everybody.created_unix_ms = everybody.updated_unix_ms = clock.unix_time_ms();
  TESSERA_RETURN_IF_ERROR(database
                              .execute("INSERT INTO enterprises VALUES (" +
                                           placeholders(kEnterpriseColumnCount) + ") ON CONFLICT DO NOTHING",
                                       values_of(everybody))
                              .status());
  return std::unique_ptr<Tenants>(new Tenants(database, clock));
}

Result<Enterprise> Tenants::create_enterprise(const EnterpriseProfile& profile) {
  Enterprise enterprise;
  enterprise.profile = profile;
  TESSERA_RETURN_IF_ERROR(check(profile));
  TESSERA_ASSIGN_OR_RETURN(enterprise.id, draw_id("org_"));
  enterprise.created_unix_ms = enterprise.updated_unix_ms = clock_.unix_time_ms();
  TESSERA_RETURN_IF_ERROR(insert_enterprise(database_, enterprise));
  return enterprise;
}

Result<Enterprise> Tenants::update_enterprise(const std::string& id_or_code, const EnterpriseProfile& profile,
                                              std::optional<int64_t> credit_balance) {
  TESSERA_RETURN_IF_ERROR(check(profile));
  return store::transact<Enterprise>(database_, [&](Statements& sql) -> Result<Enterprise> {
    TESSERA_ASSIGN_OR_RETURN(Enterprise enterprise, look_up(sql, id_or_code));
    TESSERA_ASSIGN_OR_RETURN(
        const Rows taken,
        sql.execute("SELECT 1 FROM enterprises WHERE code = $1 AND id <> $2", {profile.code, enterprise.id}));
    if (!taken.rows.empty())
      return invalid_argument("the code '" + profile.code + "' is taken by another enterprise");
    const int64_t credit = credit_balance.value_or(enterprise.profile.credit_balance);
    enterprise.profile = profile;
    enterprise.profile.credit_balance = credit;
    enterprise.updated_unix_ms = clock_.unix_time_ms();
    TESSERA_RETURN_IF_ERROR(
        sql.execute("UPDATE enterprises SET code = $2, name = $3, contact_name = $4, contact_email = $5, "
                    "contact_phone = $6, billing_email = $7, billing_period = $8, monthly_budget = $9, "
                    "credit_balance = $10, prepaid = $11, plan = $12, custom_pricing = $13, "
                    "data_retention_days = $14, allow_logging = $15, anonymize_data = $16, is_active = $17, "
                    "requests_per_minute = $18, tokens_per_minute = $19, max_concurrent = $20, weight = $21, "
                    "created_ms = $22, updated_ms = $23 WHERE id = $1",
                    values_of(enterprise))
            .status());
    return enterprise;
  });
}

Result<Enterprise> Tenants::find_enterprise(const std::string& id_or_code) {
  return look_up(database_, id_or_code);
}

Result<std::vector<Enterprise>> Tenants::list_enterprises() {
  TESSERA_ASSIGN_OR_RETURN(const Rows rows, database_.execute("SELECT " + std::string(kEnterpriseColumns) +
                                                              " FROM enterprises e ORDER BY name, id"));
  std::vector<Enterprise> enterprises;
  for (const Row& row : rows.rows) enterprises.push_back(enterprise_of(row));
  return enterprises;
}

Result<NewApiKey> Tenants::create_key(const std::string& enterprise, const ApiKeyTerms& terms) {
  TESSERA_RETURN_IF_ERROR(check(terms));
  return store::transact<NewApiKey>(database_, [&](Statements& sql) -> Result<NewApiKey> {
    TESSERA_ASSIGN_OR_RETURN(const Enterprise owner, look_up(sql, enterprise));
    NewApiKey made;
    ApiKey& key = made.key;
    TESSERA_ASSIGN_OR_RETURN(key.id, draw_id("key_"));
    key.enterprise = owner.id;
    key.terms = terms;
    key.created_unix_ms = clock_.unix_time_ms();
    const ApiKeyTerms& t = key.terms;
    TESSERA_RETURN_IF_ERROR(
        sql.execute("INSERT INTO api_keys VALUES (" + placeholders(kKeyColumnCount) + ")",
                    {key.id, key.enterprise, std::string(), t.name, list_text(t.models), list_text(t.types),
                     list_text(t.addresses), t.requests_per_minute, t.tokens_per_minute, t.requests_per_day,
                     t.max_concurrent, t.expires_unix_ms, key.created_unix_ms, int64_t{0}, int64_t{0},
                     int64_t{t.require_signature}})
            .status());
    TESSERA_ASSIGN_OR_RETURN(made.secret, add_secret(sql, key));
    TESSERA_RETURN_IF_ERROR(
        sql.execute("UPDATE api_keys SET prefix = $2 WHERE id = $1", {key.id, key.prefix}).status());
    return made;
  });
}

Result<NewApiKey> Tenants::rotate_key(const std::string& enterprise, const std::string& id, int64_t grace_s) {
  if (grace_s < 0 || grace_s > kLongestGrace_s)
    return invalid_argument("the old secret may work for " + std::to_string(kLongestGrace_s) +
                            " seconds more at most");
  const int64_t now_ms = clock_.unix_time_ms();
  return store::transact<NewApiKey>(database_, [&](Statements& sql) -> Result<NewApiKey> {
    NewApiKey made;
    TESSERA_ASSIGN_OR_RETURN(made.key, look_up_key(sql, enterprise, id));
    if (made.key.revoked_unix_ms != 0) return invalid_argument("the key '" + id + "' was revoked");
    // Of older secrets none lives longer than the one that goes now.
    if (grace_s == 0) {
      TESSERA_RETURN_IF_ERROR(sql.execute("DELETE FROM api_key_secrets WHERE key_id = $1", {id}).status());
    } else {
      TESSERA_RETURN_IF_ERROR(
          sql.execute("DELETE FROM api_key_secrets WHERE key_id = $1 AND expires_ms > 0 AND expires_ms <= $2",
                      {id, now_ms})
              .status());
      TESSERA_RETURN_IF_ERROR(
          sql.execute("UPDATE api_key_secrets SET expires_ms = $2 WHERE key_id = $1 AND expires_ms = 0",
                      {id, now_ms + grace_s * 1000})
              .status());
    }
    TESSERA_ASSIGN_OR_RETURN(made.secret, add_secret(sql, made.key));
    made.key.rotated_unix_ms = now_ms;
    TESSERA_RETURN_IF_ERROR(sql.execute("UPDATE api_keys SET prefix = $2, rotated_ms = $3 WHERE id = $1",
                                        {id, made.key.prefix, now_ms})
                                .status());
    return made;
  });
}

Status Tenants::revoke_key(const std::string& enterprise, const std::string& id) {
  return database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(const ApiKey key, look_up_key(sql, enterprise, id));
    if (key.revoked_unix_ms != 0) return {};
    return sql.execute("UPDATE api_keys SET revoked_ms = $2 WHERE id = $1", {id, clock_.unix_time_ms()})
        .status();
  });
}

Result<std::vector<ApiKey>> Tenants::list_keys(const std::string& enterprise) {
  std::vector<Value> params;
  std::string where;
  if (!enterprise.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const Enterprise owner, find_enterprise(enterprise));
    params.emplace_back(owner.id);
    where = " WHERE k.enterprise_id = $1";
  }
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows, database_.execute("SELECT " + std::string(kKeyColumns) + " FROM api_keys k" + where +
                                             " ORDER BY k.created_ms DESC, k.id",
                                         params));
  std::vector<ApiKey> keys;
  for (const Row& row : rows.rows) keys.push_back(key_of(row));
  return keys;
}

Result<std::optional<KnownKey>> Tenants::find_secret(std::string_view secret) {
  // The database compares hashes of what was sent: the time that takes tells nothing about the secrets.
  const Digest hash = sha256(as_bytes(secret));
  TESSERA_ASSIGN_OR_RETURN(
      const Rows found,
      database_.execute("SELECT " + std::string(kKeyColumns) + ", " + kEnterpriseColumns +
                            ", s.expires_ms FROM api_key_secrets s JOIN api_keys k ON k.id = s.key_id "
                            "JOIN enterprises e ON e.id = k.enterprise_id WHERE s.secret_sha256 = $1",
                        {Blob(hash.begin(), hash.end())}));
  if (found.rows.empty()) return std::optional<KnownKey>();
  const Row& row = found.rows[0];
  KnownKey known;
  known.key = key_of(row);
  known.enterprise = enterprise_of(row, kKeyColumnCount);
  known.secret_expires_unix_ms = integer_at(row, kKeyColumnCount + kEnterpriseColumnCount);
  if (known.secret_expires_unix_ms != 0 && known.secret_expires_unix_ms <= clock_.unix_time_ms())
    return std::optional<KnownKey>();
  return std::optional<KnownKey>(std::move(known));
}

Result<std::optional<SigningKey>> Tenants::find_signing_key(const std::string& id) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows found,
      database_.execute("SELECT " + std::string(kKeyColumns) + ", " + kEnterpriseColumns +
                            ", s.secret_sha256 FROM api_keys k JOIN enterprises e ON e.id = k.enterprise_id "
                            "JOIN api_key_secrets s ON s.key_id = k.id "
                            "WHERE k.id = $1 AND (s.expires_ms = 0 OR s.expires_ms > $2)",
                        {id, clock_.unix_time_ms()}));
  if (found.rows.empty()) return std::optional<SigningKey>();
  SigningKey key;
  key.known.key = key_of(found.rows[0]);
  key.known.enterprise = enterprise_of(found.rows[0], kKeyColumnCount);
  for (const Row& row : found.rows) {
    const Blob hash = store::blob_at(row, kKeyColumnCount + kEnterpriseColumnCount);
    if (hash.size() == sizeof(Digest))
      std::copy(hash.begin(), hash.end(), key.secrets.emplace_back().begin());
  }
  return std::optional<SigningKey>(std::move(key));
}

}  // namespace tessera::control
