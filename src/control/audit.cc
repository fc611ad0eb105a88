#include "control/audit.h"

#include <algorithm>

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
CREATE TABLE audit (
  number INTEGER PRIMARY KEY NOT NULL,
  unix_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  address TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  status INTEGER NOT NULL,
  seal BLOB NOT NULL
) STRICT;
)sql",
};

constexpr const char* kColumns = "number, unix_ms, actor, address, action, target, status, seal";
constexpr int kAttempts = 20;  // when several gateways append at once
constexpr int64_t kPage = 1000;

AuditEntry entry_of(const Row& row) {
  AuditEntry entry;
  entry.number = integer_at(row, 0);
  entry.unix_ms = integer_at(row, 1);
  entry.actor = text_at(row, 2);
  entry.address = text_at(row, 3);
  entry.action = text_at(row, 4);
  entry.target = text_at(row, 5);
  entry.status = integer_at(row, 6);
  const Blob seal = store::blob_at(row, 7);
  if (seal.size() == entry.seal.size()) std::copy(seal.begin(), seal.end(), entry.seal.begin());
  return entry;
}

// Lengths keep the fields apart: no two entries give the same bytes.
Digest seal_of(const AuditEntry& entry, const Digest& before) {
  std::string bytes(before.begin(), before.end());
  const auto field = [&](const std::string& text) { bytes += std::to_string(text.size()) + ":" + text; };
  for (const int64_t number : {entry.number, entry.unix_ms, entry.status}) field(std::to_string(number));
  for (const std::string* text : {&entry.actor, &entry.address, &entry.action, &entry.target}) field(*text);
  return sha256(as_bytes(bytes));
}

}  // namespace

Result<std::unique_ptr<Audit>> Audit::open(store::Database& database, const Clock& clock) {
  TESSERA_RETURN_IF_ERROR(store::migrate(database, "audit", kMigrations));
  return std::unique_ptr<Audit>(new Audit(database, clock));
}

Status Audit::append(AuditEntry entry) {
  entry.unix_ms = clock_.unix_time_ms();
  Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    status = database_.transaction([&](Statements& sql) -> Status {
      TESSERA_ASSIGN_OR_RETURN(const Rows last, sql.execute("SELECT " + std::string(kColumns) +
                                                            " FROM audit ORDER BY number DESC LIMIT 1"));
      const AuditEntry before = last.rows.empty() ? AuditEntry() : entry_of(last.rows[0]);
      entry.number = before.number + 1;
      entry.seal = seal_of(entry, before.seal);
      return sql
          .execute(
              "INSERT INTO audit (" + std::string(kColumns) + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
              {entry.number, entry.unix_ms, entry.actor, entry.address, entry.action, entry.target,
               entry.status, Blob(entry.seal.begin(), entry.seal.end())})
          .status();
    });
    // Another gateway took the number meanwhile.
    if (status.code() != Code::kInvalidArgument) break;
  }
  return status;
}

Result<std::vector<AuditEntry>> Audit::entries(int64_t limit, int64_t offset) {
  TESSERA_ASSIGN_OR_RETURN(const Rows rows,
                           database_.execute("SELECT " + std::string(kColumns) +
                                                 " FROM audit ORDER BY number DESC LIMIT $1 OFFSET $2",
                                             {limit, offset}));
  std::vector<AuditEntry> entries;
  for (const Row& row : rows.rows) entries.push_back(entry_of(row));
  return entries;
}

Result<AuditVerdict> Audit::verify() {
  AuditVerdict verdict;
  for (;;) {
    TESSERA_ASSIGN_OR_RETURN(const Rows rows,
                             database_.execute("SELECT " + std::string(kColumns) +
                                                   " FROM audit WHERE number > $1 ORDER BY number LIMIT $2",
                                               {verdict.entries, kPage}));
    if (rows.rows.empty()) return verdict;
    for (const Row& row : rows.rows) {
      const AuditEntry entry = entry_of(row);
      const int64_t expected = verdict.entries + 1;
      if (entry.number != expected) {
        verdict.broken_at = expected;
        verdict.problem = "entry " + std::to_string(expected) + " is missing";
        return verdict;
      }
      if (entry.seal != seal_of(entry, verdict.last)) {
        verdict.broken_at = expected;
        verdict.problem = "entry " + std::to_string(expected) + " was changed, or the one before it";
        return verdict;
      }
      verdict.last = entry.seal;
      verdict.entries = expected;
    }
  }
}

}  // namespace tessera::control
