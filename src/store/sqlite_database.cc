#include "store/sqlite_database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <unordered_map>

#include "base/mutex.h"
#include "store/transaction.h"

namespace tessera::store {
namespace {

constexpr size_t kStatementsKept = 256;  // prepared; callers write their statements as constants

struct CloseConnection {
  void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
};
struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Connection = std::unique_ptr<sqlite3, CloseConnection>;
using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

Code code_of(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
      return Code::kInvalidArgument;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Code::kUnavailable;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return Code::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Code::kCorrupt;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return Code::kIo;
    default:
      return Code::kInternal;
  }
}

Value column_value(sqlite3_stmt* statement, int column) {
  switch (sqlite3_column_type(statement, column)) {
    case SQLITE_INTEGER:
      return int64_t{sqlite3_column_int64(statement, column)};
    case SQLITE_FLOAT:
      return sqlite3_column_double(statement, column);
    case SQLITE_TEXT: {
      const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
      return std::string(text ? text : "", static_cast<size_t>(sqlite3_column_bytes(statement, column)));
    }
    case SQLITE_BLOB: {
      const auto* bytes = static_cast<const uint8_t*>(sqlite3_column_blob(statement, column));
      const int size = sqlite3_column_bytes(statement, column);
      return bytes ? Blob(bytes, bytes + size) : Blob();
    }
    default:
      return std::monostate{};
  }
}

int bind_value(sqlite3_stmt* statement, int index, const Value& value) {
  if (const auto* integer = std::get_if<int64_t>(&value))
    return sqlite3_bind_int64(statement, index, *integer);
  if (const auto* real = std::get_if<double>(&value)) return sqlite3_bind_double(statement, index, *real);
  // The values outlive the statement's run: SQLite needs no copy.
  if (const auto* text = std::get_if<std::string>(&value))
    return sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_STATIC, SQLITE_UTF8);
  if (const auto* blob = std::get_if<Blob>(&value)) {
    if (blob->empty()) return sqlite3_bind_zeroblob(statement, index, 0);
    return sqlite3_bind_blob64(statement, index, blob->data(), blob->size(), SQLITE_STATIC);
  }
  return sqlite3_bind_null(statement, index);
}

// The connection with its prepared statements; the caller holds the database's mutex.
class Session final : public Statements {
 public:
  Session(Connection connection, const std::string& description)
      : connection_(std::move(connection)), description_(description) {}

  Result<Rows> execute(std::string_view sql, const std::vector<Value>& params) override {
    TESSERA_ASSIGN_OR_RETURN(sqlite3_stmt * statement, prepared(sql));
    // Whatever happens, the statement lets go of its locks and of the values.
    const std::unique_ptr<sqlite3_stmt, void (*)(sqlite3_stmt*)> release(statement, [](sqlite3_stmt* s) {
      sqlite3_reset(s);
      sqlite3_clear_bindings(s);
    });
    TESSERA_RETURN_IF_ERROR(bind(statement, params));
    Rows result;
    const int64_t changed_before = sqlite3_total_changes64(connection_.get());
    const int columns = sqlite3_column_count(statement);
    for (;;) {
      const int code = sqlite3_step(statement);
      if (code == SQLITE_DONE) break;
      if (code != SQLITE_ROW) return error(code);
      Row& row = result.rows.emplace_back();
      row.reserve(static_cast<size_t>(columns));
      for (int i = 0; i < columns; ++i) row.push_back(column_value(statement, i));
    }
    if (sqlite3_total_changes64(connection_.get()) != changed_before)
      result.changed = sqlite3_changes64(connection_.get());
    return result;
  }

  Status script(std::string_view sql) override {
    const int code = sqlite3_exec(connection_.get(), std::string(sql).c_str(), nullptr, nullptr, nullptr);
    return code == SQLITE_OK ? Status() : error(code);
  }

  Status transaction(const std::function<Status(Statements&)>& body) {
    TESSERA_RETURN_IF_ERROR(script("BEGIN IMMEDIATE"));
    // Ends the transaction if the body leaves by an exception, or the commit fails.
    struct Rollback {
      sqlite3* connection;
      ~Rollback() {
        if (!sqlite3_get_autocommit(connection))
          sqlite3_exec(connection, "ROLLBACK", nullptr, nullptr, nullptr);
      }
    } rollback{connection_.get()};
    TransactionStatements statements(*this);
    TESSERA_RETURN_IF_ERROR(body(statements));
    TESSERA_RETURN_IF_ERROR(statements.failure());
    return script("COMMIT");
  }

 private:
  Status error(int code) const {
    return {code_of(code), description_ + ": " + sqlite3_errmsg(connection_.get())};
  }

  Result<sqlite3_stmt*> prepared(std::string_view sql) {
    std::string key(sql);
    if (auto found = statements_.find(key); found != statements_.end()) return found->second.get();
    sqlite3_stmt* raw = nullptr;
    const char* tail = nullptr;
    const int code = sqlite3_prepare_v3(connection_.get(), key.c_str(), static_cast<int>(key.size()) + 1,
                                        SQLITE_PREPARE_PERSISTENT, &raw, &tail);
    Statement statement(raw);
    if (code != SQLITE_OK) return error(code);
    if (!raw) return internal_error(description_ + ": empty statement");
    if (std::string_view(tail).find_first_not_of(" \t\r\n;") != std::string_view::npos)
      return internal_error(description_ + ": more than one statement: " + key);
    if (statements_.size() >= kStatementsKept) statements_.clear();
    return statements_.emplace(std::move(key), std::move(statement)).first->second.get();
  }

  // $N takes params[N - 1], wherever and however often it stands.
  Status bind(sqlite3_stmt* statement, const std::vector<Value>& params) const {
    size_t highest = 0;
    const int count = sqlite3_bind_parameter_count(statement);
    for (int index = 1; index <= count; ++index) {
      const char* name = sqlite3_bind_parameter_name(statement, index);
      const std::string_view text = name ? name : "?";
      size_t number = 0;
      const auto [end, problem] = std::from_chars(text.data() + 1, text.data() + text.size(), number);
      if (text[0] != '$' || problem != std::errc() || end != text.data() + text.size() || number == 0)
        return internal_error("parameters are $1, $2, …: " + std::string(sqlite3_sql(statement)));
      highest = std::max(highest, number);
      if (number > params.size()) continue;
      if (const int code = bind_value(statement, index, params[number - 1]); code != SQLITE_OK)
        return error(code);
    }
    if (highest != params.size())
      return internal_error(std::to_string(params.size()) + " values for " + std::to_string(highest) +
                            " parameters: " + sqlite3_sql(statement));
    return {};
  }

  Connection connection_;
  const std::string& description_;
  std::unordered_map<std::string, Statement> statements_;  // goes before the connection
};

class SqliteDatabase final : public Database {
 public:
  SqliteDatabase(Connection connection, std::string description)
      : description_(std::move(description)), session_(std::move(connection), description_) {}

  Result<Rows> execute(std::string_view sql, const std::vector<Value>& params) override {
    MutexLock lock(mutex_);
    return session_.execute(sql, params);
  }
  Status script(std::string_view sql) override {
    MutexLock lock(mutex_);
    return session_.script(sql);
  }
  Status transaction(const std::function<Status(Statements&)>& body) override {
    MutexLock lock(mutex_);
    return session_.transaction(body);
  }
  const std::string& description() const override { return description_; }

 private:
  const std::string description_;
  Mutex mutex_;
  Session session_ TESSERA_GUARDED_BY(mutex_);
};

Status make_file(const std::filesystem::path& file) {
  std::error_code problem;
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), problem);
  if (problem) return io_error("cannot make " + file.parent_path().string(), problem.value());
  // SQLite gives its log the permissions of the file: no others may read secrets and hashes.
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return io_error("cannot open " + file.string(), errno);
  ::close(descriptor);
  return {};
}

}  // namespace

Result<std::unique_ptr<Database>> open_sqlite(const std::filesystem::path& file, SqliteOptions options) {
  const bool in_memory = file == ":memory:";
  if (!in_memory) TESSERA_RETURN_IF_ERROR(make_file(file));
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(file.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, nullptr);
  Connection connection(raw);
  if (code != SQLITE_OK)
    return Status(code_of(code), file.string() + ": " + (raw ? sqlite3_errmsg(raw) : sqlite3_errstr(code)));
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, options.busy_timeout_ms);
  auto database = std::make_unique<SqliteDatabase>(std::move(connection), file.string());
  TESSERA_ASSIGN_OR_RETURN(const Rows mode, database->execute("PRAGMA journal_mode = WAL", {}));
  if (!in_memory && (mode.rows.empty() || text_at(mode.rows[0], 0) != "wal"))
    return Status(Code::kIo, file.string() + " lies on a file system that cannot hold a write-ahead log: " +
                                 "put it on a local disk");
  TESSERA_RETURN_IF_ERROR(
      database->script("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF"));
  return std::unique_ptr<Database>(std::move(database));
}

}  // namespace tessera::store
