// The audit log: who did what, in order, each entry sealed by a hash over it and the one before. What is
// changed, taken out or put in between afterwards is found by verify().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/sha256.h"
#include "store/database.h"

namespace tessera::control {

struct AuditEntry {
  int64_t number = 0;  // 1, 2, 3, …
  int64_t unix_ms = 0;
  std::string actor = {};  // "user:ann", a key's id; empty: nobody known
  std::string address = {};
  std::string action = {};  // "POST /api/v1/admin/enterprises/{id}/api-keys"
  std::string target = {};  // the path as it was called
  int64_t status = 0;       // of the answer
  Digest seal{};
};

struct AuditVerdict {
  int64_t entries = 0;
  int64_t broken_at = 0;  // number of the first entry that is not as it was; 0: all are
  std::string problem;
  Digest last{};  // keep it elsewhere: it seals everything before it
};

// Thread-safe, also between processes that share the database. Entries are only ever added. Database and
// clock outlive it.
class Audit {
 public:
  static Result<std::unique_ptr<Audit>> open(store::Database& database, const Clock& clock);

  // `number`, `unix_ms` and `seal` are set here.
  Status append(AuditEntry entry);
  Result<std::vector<AuditEntry>> entries(int64_t limit, int64_t offset);  // newest first
  Result<AuditVerdict> verify();

 private:
  Audit(store::Database& database, const Clock& clock) : database_(database), clock_(clock) {}
  store::Database& database_;
  const Clock& clock_;
};

}  // namespace tessera::control
