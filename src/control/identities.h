// Who may join, who has joined, and what went wrong with them: join tokens, worker identities, failovers and
// the gateways' shared secrets, kept in the database. Certificates and random bytes are the caller's
// (`wire`).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "store/database.h"

namespace tessera::control {

struct TokenTerms {
  int64_t expires_unix_ms = 0;       // 0: never
  std::optional<int64_t> uses_left;  // nullopt: any number of workers
  std::string note;                  // for people
};

struct TokenRecord {
  std::string id;  // 8 hex digits of the secret's hash: names the token without giving it away
  TokenTerms terms;
  int64_t created_unix_ms = 0;
  int64_t used = 0;  // workers that joined by it
  bool revoked = false;
  bool usable(int64_t now_unix_ms) const {
    return !revoked && (terms.expires_unix_ms == 0 || now_unix_ms < terms.expires_unix_ms) &&
           terms.uses_left.value_or(1) > 0;
  }
};

struct WorkerIdentity {
  std::string name;         // common name of its certificates; unique for ever
  int64_t id = 0;           // stands for the name in records
  std::string certificate;  // fingerprint or serial of the latest; empty: none was issued yet
  int64_t certificate_expires_unix_ms = 0;
  int64_t created_unix_ms = 0;
  int64_t last_seen_unix_ms = 0;
  int64_t joins = 0;           // first one included
  std::string revoked_reason;  // empty: not revoked
  bool revoked = false;
};

struct FailoverRecord {
  int64_t unix_ms = 0;  // 0 when recorded: now
  std::string worker;   // the one that failed
  std::string model;
  std::string cause;     // one sentence
  int64_t sessions = 0;  // that moved
  double stall_ms = 0;   // longest gap in a stream; 0: not known
};

// Thread-safe, also between processes that share the database: every function is one transaction. The
// database and the clock outlive it.
class Identities {
 public:
  static constexpr size_t kLeastSecretBytes = 16;
  static constexpr int kFailoversKept = 10'000;

  // Makes or migrates its tables.
  static Result<std::unique_ptr<Identities>> open(store::Database& database, const Clock& clock);

  // --- join tokens: only the secret's SHA-256 is kept ---
  // `secret` is random, of kLeastSecretBytes at least.
  Result<TokenRecord> add_token(std::string_view secret, TokenTerms terms);
  // Counts a use. PermissionDenied with a sentence: unknown, revoked, expired or used up.
  Result<TokenRecord> redeem_token(std::string_view secret);
  // kNotFound if there is none of that id. Workers that have joined stay.
  Status revoke_token(const std::string& id);
  // Revokes `id` and puts a new token with its note in its place.
  Result<TokenRecord> rotate_token(const std::string& id, std::string_view new_secret, TokenTerms terms);
  Result<std::vector<TokenRecord>> list_tokens();  // newest first, used and revoked ones included
  // Deletes tokens that were revoked, used up or expired before that time.
  Status forget_tokens_before(int64_t unix_ms);

  // --- workers ---
  // The identity for a worker that joins, to be called after its token or its old certificate was verified.
  // `proven_name`: common name of a certificate of this cluster whose key it has shown, empty if it has none:
  // it gets that identity again. Otherwise a new one: `wanted_name`, with "-2", "-3", … after it where it is
  // taken. InvalidArgument: no name by check_identity_name(); PermissionDenied: the identity was revoked.
  Result<WorkerIdentity> admit(const std::string& wanted_name, const std::string& proven_name);

  Status record_certificate(const std::string& name, const std::string& certificate, int64_t expires_unix_ms);
  // Ok if the identity exists and was not revoked, and the certificate is one that was recorded for it:
  // asked whenever a worker connects. PermissionDenied otherwise.
  Status check_certificate(const std::string& name, const std::string& certificate);
  Status seen(const std::string& name);
  // The name stays taken.
  Status revoke_worker(const std::string& name, const std::string& reason);
  Result<WorkerIdentity> find_worker(const std::string& name);  // kNotFound
  Result<std::vector<WorkerIdentity>> list_workers();           // by name

  // --- failovers ---
  Status record_failover(FailoverRecord failover);
  // Newest first; of one worker, or of all where the name is empty.
  Result<std::vector<FailoverRecord>> failovers(int limit, const std::string& worker = "");

  // --- what the gateways of one database share ---
  // The stored value of that name; `fresh` is stored and returned if there is none yet.
  Result<std::string> keep_secret(const std::string& name, std::string_view fresh);
  Result<std::optional<std::string>> meta(const std::string& name);
  Status set_meta(const std::string& name, std::string_view value);

 private:
  Identities(store::Database& database, const Clock& clock) : database_(database), clock_(clock) {}
  store::Database& database_;
  const Clock& clock_;
};

}  // namespace tessera::control
