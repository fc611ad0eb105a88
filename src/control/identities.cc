#include "control/identities.h"

#include <algorithm>

#include "base/secrets.h"
#include "base/sha256.h"
#include "core/identity_name.h"
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
CREATE TABLE join_tokens (
  id TEXT PRIMARY KEY NOT NULL,
  secret_sha256 BLOB NOT NULL UNIQUE,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  uses_left INTEGER,
  used INTEGER NOT NULL DEFAULT 0,
  revoked INTEGER NOT NULL DEFAULT 0,
  note TEXT NOT NULL
) STRICT;
CREATE TABLE workers (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  certificate TEXT NOT NULL DEFAULT '',
  certificate_expires_ms INTEGER NOT NULL DEFAULT 0,
  created_ms INTEGER NOT NULL,
  last_seen_ms INTEGER NOT NULL,
  joins INTEGER NOT NULL DEFAULT 1,
  revoked INTEGER NOT NULL DEFAULT 0,
  revoked_reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE certificates (
  certificate TEXT PRIMARY KEY NOT NULL,
  worker_id INTEGER NOT NULL REFERENCES workers (id) ON DELETE CASCADE,
  issued_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_of_worker ON certificates (worker_id);
CREATE TABLE failovers (
  id INTEGER PRIMARY KEY,
  unix_ms INTEGER NOT NULL,
  worker TEXT NOT NULL,
  model TEXT NOT NULL,
  cause TEXT NOT NULL,
  sessions INTEGER NOT NULL,
  stall_ms REAL NOT NULL
) STRICT;
CREATE INDEX failovers_of_worker ON failovers (worker, id);
CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT;
)sql",
};

constexpr const char* kTokenColumns = "id, created_ms, expires_ms, uses_left, used, revoked, note";
constexpr const char* kWorkerColumns =
    "name, id, certificate, certificate_expires_ms, created_ms, last_seen_ms, joins, revoked, revoked_reason";
constexpr int kMostSuffix = 10'000;

TokenRecord token_of(const Row& row) {
  TokenRecord token;
  token.id = text_at(row, 0);
  token.created_unix_ms = integer_at(row, 1);
  token.terms.expires_unix_ms = integer_at(row, 2);
  if (std::holds_alternative<int64_t>(row[3])) token.terms.uses_left = integer_at(row, 3);
  token.used = integer_at(row, 4);
  token.revoked = integer_at(row, 5) != 0;
  token.terms.note = text_at(row, 6);
  return token;
}

WorkerIdentity worker_of(const Row& row) {
  WorkerIdentity worker;
  worker.name = text_at(row, 0);
  worker.id = integer_at(row, 1);
  worker.certificate = text_at(row, 2);
  worker.certificate_expires_unix_ms = integer_at(row, 3);
  worker.created_unix_ms = integer_at(row, 4);
  worker.last_seen_unix_ms = integer_at(row, 5);
  worker.joins = integer_at(row, 6);
  worker.revoked = integer_at(row, 7) != 0;
  worker.revoked_reason = text_at(row, 8);
  return worker;
}

Blob to_blob(std::string_view text) {
  const auto bytes = as_bytes(text);
  return Blob(bytes.begin(), bytes.end());
}
std::string to_text(const Blob& blob) {
  return std::string(blob.begin(), blob.end());
}

std::string token_id(const Digest& hash) {
  return to_hex(std::span(hash).first(4));
}

Result<TokenRecord> insert_token(Statements& sql, std::string_view secret, const TokenTerms& terms,
                                 int64_t now_ms) {
  if (secret.size() < Identities::kLeastSecretBytes)
    return invalid_argument("a join token's secret has " + std::to_string(Identities::kLeastSecretBytes) +
                            " bytes at least");
  const Digest hash = sha256(as_bytes(secret));
  std::vector<Value> values = {token_id(hash), Blob(hash.begin(), hash.end()), now_ms, terms.expires_unix_ms,
                               terms.note};
  if (terms.uses_left)
    values.emplace_back(*terms.uses_left);
  else
    values.emplace_back();
  TESSERA_ASSIGN_OR_RETURN(
      const Rows added,
      sql.execute("INSERT INTO join_tokens (id, secret_sha256, created_ms, expires_ms, note, uses_left) "
                  "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING " +
                      std::string(kTokenColumns),
                  values));
  if (added.rows.empty()) return invalid_argument("this join token exists already: draw another secret");
  return token_of(added.rows[0]);
}

Status revoke_token_in(Statements& sql, const std::string& id) {
  TESSERA_ASSIGN_OR_RETURN(const Rows done,
                           sql.execute("UPDATE join_tokens SET revoked = 1 WHERE id = $1", {id}));
  return done.changed > 0 ? Status() : not_found("there is no join token '" + id + "'");
}

Result<std::optional<WorkerIdentity>> look_up(Statements& sql, const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows found,
      sql.execute("SELECT " + std::string(kWorkerColumns) + " FROM workers WHERE name = $1", {name}));
  if (found.rows.empty()) return std::optional<WorkerIdentity>();
  return std::optional<WorkerIdentity>(worker_of(found.rows[0]));
}

// The new worker, or nullopt if the name is taken.
Result<std::optional<WorkerIdentity>> insert_worker(Statements& sql, const std::string& name,
                                                    int64_t now_ms) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows added,
      sql.execute("INSERT INTO workers (name, created_ms, last_seen_ms) VALUES ($1, $2, $2) "
                  "ON CONFLICT (name) DO NOTHING RETURNING " +
                      std::string(kWorkerColumns),
                  {name, now_ms}));
  if (added.rows.empty()) return std::optional<WorkerIdentity>();
  return std::optional<WorkerIdentity>(worker_of(added.rows[0]));
}

Status no_worker(const std::string& name) {
  return not_found("no worker '" + name + "' has ever joined");
}
Status was_revoked(const WorkerIdentity& worker) {
  return {Code::kPermissionDenied, "worker '" + worker.name + "' was revoked" +
                                       (worker.revoked_reason.empty() ? "" : ": " + worker.revoked_reason)};
}

}  // namespace

Result<std::unique_ptr<Identities>> Identities::open(store::Database& database, const Clock& clock) {
  TESSERA_RETURN_IF_ERROR(store::migrate(database, "identities", kMigrations));
  return std::unique_ptr<Identities>(new Identities(database, clock));
}

// --- join tokens -----------------------------------------------------------------------------------------

Result<TokenRecord> Identities::add_token(std::string_view secret, TokenTerms terms) {
  return insert_token(database_, secret, terms, clock_.unix_time_ms());
}

Result<TokenRecord> Identities::redeem_token(std::string_view secret) {
  const Digest hash = sha256(as_bytes(secret));
  const int64_t now_ms = clock_.unix_time_ms();
  auto denied = [](std::string why) { return Status(Code::kPermissionDenied, std::move(why)); };
  return store::transact<TokenRecord>(database_, [&](Statements& sql) -> Result<TokenRecord> {
    const std::string id = token_id(hash);
    TESSERA_ASSIGN_OR_RETURN(
        const Rows found,
        sql.execute("SELECT " + std::string(kTokenColumns) + ", secret_sha256 FROM join_tokens WHERE id = $1",
                    {id}));
    const Blob stored = found.rows.empty() ? Blob() : store::blob_at(found.rows[0], 7);
    // In constant time, so that the answer's delay tells nothing of how much of a guess was right.
    if (!same_secret(stored, hash))
      return denied("this join token is not known here: ask the gateway for a new join command");
    TokenRecord token = token_of(found.rows[0]);
    if (token.revoked) return denied("join token " + id + " was revoked: ask for a new join command");
    if (token.terms.uses_left.value_or(1) <= 0)
      return denied("join token " + id + " is used up: ask for a new join command");
    if (!token.usable(now_ms)) return denied("join token " + id + " has expired: ask for a new join command");
    TESSERA_ASSIGN_OR_RETURN(const Rows used,
                             sql.execute("UPDATE join_tokens SET used = used + 1, uses_left = uses_left - 1 "
                                         "WHERE id = $1 RETURNING " +
                                             std::string(kTokenColumns),
                                         {id}));
    return token_of(used.rows.at(0));
  });
}

Status Identities::revoke_token(const std::string& id) {
  return revoke_token_in(database_, id);
}

Result<TokenRecord> Identities::rotate_token(const std::string& id, std::string_view new_secret,
                                             TokenTerms terms) {
  return store::transact<TokenRecord>(database_, [&](Statements& sql) -> Result<TokenRecord> {
    TESSERA_RETURN_IF_ERROR(revoke_token_in(sql, id));
    TESSERA_ASSIGN_OR_RETURN(const Rows old, sql.execute("SELECT note FROM join_tokens WHERE id = $1", {id}));
    if (terms.note.empty()) terms.note = text_at(old.rows.at(0), 0);
    return insert_token(sql, new_secret, terms, clock_.unix_time_ms());
  });
}

Result<std::vector<TokenRecord>> Identities::list_tokens() {
  TESSERA_ASSIGN_OR_RETURN(const Rows rows,
                           database_.execute("SELECT " + std::string(kTokenColumns) +
                                             " FROM join_tokens ORDER BY created_ms DESC, id"));
  std::vector<TokenRecord> tokens;
  for (const Row& row : rows.rows) tokens.push_back(token_of(row));
  return tokens;
}

Status Identities::forget_tokens_before(int64_t unix_ms) {
  return database_
      .execute(
          "DELETE FROM join_tokens WHERE created_ms < $1 AND "
          "(revoked = 1 OR uses_left <= 0 OR (expires_ms > 0 AND expires_ms < $1))",
          {unix_ms})
      .status();
}

// --- workers ---------------------------------------------------------------------------------------------

Result<WorkerIdentity> Identities::admit(const std::string& wanted_name, const std::string& proven_name) {
  const std::string& asked = proven_name.empty() ? wanted_name : proven_name;
  TESSERA_RETURN_IF_ERROR(check_identity_name(asked));
  const int64_t now_ms = clock_.unix_time_ms();
  return store::transact<WorkerIdentity>(database_, [&](Statements& sql) -> Result<WorkerIdentity> {
    if (!proven_name.empty()) {
      TESSERA_ASSIGN_OR_RETURN(std::optional<WorkerIdentity> known, look_up(sql, proven_name));
      if (known && known->revoked) return was_revoked(*known);
      if (known) {
        TESSERA_RETURN_IF_ERROR(
            sql.execute("UPDATE workers SET last_seen_ms = $2, joins = joins + 1 WHERE name = $1",
                        {proven_name, now_ms})
                .status());
        known->last_seen_unix_ms = now_ms;
        ++known->joins;
        return *known;
      }
      // The authority vouches for it though the database forgot it (a restored backup).
    }
    for (int number = 1; number <= kMostSuffix; ++number) {
      const std::string suffix = number == 1 ? "" : "-" + std::to_string(number);
      std::string name = asked.substr(0, kLongestIdentityName - suffix.size());
      while (!suffix.empty() && name.back() == '-') name.pop_back();
      TESSERA_ASSIGN_OR_RETURN(std::optional<WorkerIdentity> added,
                               insert_worker(sql, name + suffix, now_ms));
      if (added) return *added;
    }
    return resource_exhausted("more than " + std::to_string(kMostSuffix) + " workers were named '" + asked +
                              "': choose another --name");
  });
}

Status Identities::record_certificate(const std::string& name, const std::string& certificate,
                                      int64_t expires_unix_ms) {
  if (certificate.empty()) return invalid_argument("a certificate to record needs its fingerprint");
  const int64_t now_ms = clock_.unix_time_ms();
  return database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(const std::optional<WorkerIdentity> worker, look_up(sql, name));
    if (!worker) return no_worker(name);
    if (worker->revoked) return was_revoked(*worker);
    TESSERA_RETURN_IF_ERROR(
        sql.execute("INSERT INTO certificates (certificate, worker_id, issued_ms, expires_ms) "
                    "VALUES ($1, $2, $3, $4)",
                    {certificate, worker->id, now_ms, expires_unix_ms})
            .status());
    return sql
        .execute("UPDATE workers SET certificate = $2, certificate_expires_ms = $3 WHERE id = $1",
                 {worker->id, certificate, expires_unix_ms})
        .status();
  });
}

Status Identities::check_certificate(const std::string& name, const std::string& certificate) {
  TESSERA_ASSIGN_OR_RETURN(const std::optional<WorkerIdentity> worker, look_up(database_, name));
  if (!worker) return {Code::kPermissionDenied, "worker '" + name + "' is not known here: join with a token"};
  if (worker->revoked) return was_revoked(*worker);
  TESSERA_ASSIGN_OR_RETURN(
      const Rows found,
      database_.execute("SELECT 1 FROM certificates WHERE certificate = $1 AND worker_id = $2",
                        {certificate, worker->id}));
  if (found.rows.empty())
    return {Code::kPermissionDenied,
            "the certificate of worker '" + name + "' was not issued by this cluster"};
  return {};
}

Status Identities::seen(const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(const Rows done,
                           database_.execute("UPDATE workers SET last_seen_ms = $2 WHERE name = $1",
                                             {name, clock_.unix_time_ms()}));
  return done.changed > 0 ? Status() : no_worker(name);
}

Status Identities::revoke_worker(const std::string& name, const std::string& reason) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows done,
      database_.execute("UPDATE workers SET revoked = 1, revoked_reason = $2 WHERE name = $1",
                        {name, reason}));
  return done.changed > 0 ? Status() : no_worker(name);
}

Result<WorkerIdentity> Identities::find_worker(const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(std::optional<WorkerIdentity> worker, look_up(database_, name));
  if (!worker) return no_worker(name);
  return *worker;
}

Result<std::vector<WorkerIdentity>> Identities::list_workers() {
  TESSERA_ASSIGN_OR_RETURN(const Rows rows, database_.execute("SELECT " + std::string(kWorkerColumns) +
                                                              " FROM workers ORDER BY name"));
  std::vector<WorkerIdentity> workers;
  for (const Row& row : rows.rows) workers.push_back(worker_of(row));
  return workers;
}

// --- failovers -------------------------------------------------------------------------------------------

Status Identities::record_failover(FailoverRecord failover) {
  if (failover.unix_ms == 0) failover.unix_ms = clock_.unix_time_ms();
  return database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(
        const Rows added,
        sql.execute("INSERT INTO failovers (unix_ms, worker, model, cause, sessions, stall_ms) "
                    "VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
                    {failover.unix_ms, failover.worker, failover.model, failover.cause, failover.sessions,
                     failover.stall_ms}));
    return sql
        .execute("DELETE FROM failovers WHERE id <= $1", {integer_at(added.rows.at(0), 0) - kFailoversKept})
        .status();
  });
}

Result<std::vector<FailoverRecord>> Identities::failovers(int limit, const std::string& worker) {
  const std::string columns = "SELECT unix_ms, worker, model, cause, sessions, stall_ms FROM failovers ";
  const int64_t most = std::max(limit, 0);
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      worker.empty()
          ? database_.execute(columns + "ORDER BY id DESC LIMIT $1", {most})
          : database_.execute(columns + "WHERE worker = $2 ORDER BY id DESC LIMIT $1", {most, worker}));
  std::vector<FailoverRecord> failovers;
  for (const Row& row : rows.rows)
    failovers.push_back({integer_at(row, 0), text_at(row, 1), text_at(row, 2), text_at(row, 3),
                         integer_at(row, 4), store::real_at(row, 5)});
  return failovers;
}

// --- shared by gateways ----------------------------------------------------------------------------------

Result<std::string> Identities::keep_secret(const std::string& name, std::string_view fresh) {
  return store::transact<std::string>(database_, [&](Statements& sql) -> Result<std::string> {
    TESSERA_RETURN_IF_ERROR(
        sql.execute("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    {name, to_blob(fresh)})
            .status());
    TESSERA_ASSIGN_OR_RETURN(const Rows kept, sql.execute("SELECT value FROM meta WHERE name = $1", {name}));
    return to_text(store::blob_at(kept.rows.at(0), 0));
  });
}

Result<std::optional<std::string>> Identities::meta(const std::string& name) {
  TESSERA_ASSIGN_OR_RETURN(const Rows found,
                           database_.execute("SELECT value FROM meta WHERE name = $1", {name}));
  if (found.rows.empty()) return std::optional<std::string>();
  return std::optional<std::string>(to_text(store::blob_at(found.rows[0], 0)));
}

Status Identities::set_meta(const std::string& name, std::string_view value) {
  return database_
      .execute(
          "INSERT INTO meta (name, value) VALUES ($1, $2) "
          "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
          {name, to_blob(value)})
      .status();
}

}  // namespace tessera::control
