// The relational database behind the control plane. Statements are written once, in what SQLite and
// PostgreSQL share: parameters $1, $2, …, INSERT … ON CONFLICT, RETURNING; keywords in capitals, names not;
// tables in SQLite's types with STRICT (sql_text.h translates them); text compares by its bytes.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "store/value.h"

namespace tessera::store {

// Runs statements: a database, or a transaction of it.
//   kInvalidArgument  a constraint refused the values (unique, not null, foreign key, type)
//   kUnavailable      locked or not reachable within the timeout: try again
//   kResourceExhausted, kIo, kCorrupt  the disk is full, refuses, or holds something else
//   kInternal         the statement is wrong
class Statements {
 public:
  virtual ~Statements() = default;
  // One statement. As many params as the highest $N; values are bound, never pasted.
  virtual Result<Rows> execute(std::string_view sql, const std::vector<Value>& params = {}) = 0;
  // Statements without parameters, separated by semicolons (migrations).
  virtual Status script(std::string_view sql) = 0;
};

// Thread-safe; calls take turns. execute() is a transaction of its own; script() is not, unless within one.
class Database : public Statements {
 public:
  // All of it or nothing: commits when `body` returns ok, else rolls back and returns its status. What has
  // committed survives kill -9 and power loss. Transactions take turns, also those of other processes, so
  // that one may read and then write what it read; an execute() of another process may come between. A
  // statement that failed spoils the transaction: the rest fails likewise and nothing of it stays. `body`
  // uses the Statements it is given: calling the database itself, from any thread that `body` waits for,
  // would wait for ever.
  virtual Status transaction(const std::function<Status(Statements&)>& body) = 0;
  // For messages: the file or the server; no passwords.
  virtual const std::string& description() const = 0;
};

// Brings the tables of one component (its name in table schema_version) up to date, in one transaction. Step
// k of the list leads from version k to k + 1; steps are never changed once released, only added.
// kUnsupported with a clear sentence if the database was written by a program that knows more steps.
Status migrate(Database& database, std::string_view component, const std::vector<std::string_view>& steps);

}  // namespace tessera::store
