#include "store/postgres_database.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>
#include <unordered_map>

#include "base/mutex.h"
#include "obs/log.h"
#include "store/sql_text.h"
#include "store/transaction.h"

namespace tessera::store {
namespace {

using std::chrono::milliseconds;
using SteadyTime = std::chrono::steady_clock::time_point;

constexpr size_t kStatementsKept = 256;  // prepared; callers write their statements as constants
constexpr int kOldestServer = 150000;
constexpr int64_t kTurnLock = 0x7465737365726131;  // "tessera1": advisory lock of the transactions' turns

// Object ids of the types that statements bind and answer, as in the server's catalogue.
enum : Oid {
  kBool = 16,
  kBytea = 17,
  kInt8 = 20,
  kInt2 = 21,
  kInt4 = 23,
  kText = 25,
  kFloat4 = 700,
  kFloat8 = 701,
  kNumeric = 1700
};

struct FreeConnection {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
struct FreeResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, FreeConnection>;
using Answer = std::unique_ptr<PGresult, FreeResult>;

// SQLSTATE → code.
Code code_of(std::string_view state) {
  const std::string_view group = state.substr(0, 2);
  if (group == "22" || group == "23" || state == "42804") return Code::kInvalidArgument;
  // Connection, rollback by collision, lock timeout, statement timeout, shutdown and start, a standby.
  if (group == "08" || group == "40" || group == "55" || group == "57" || state == "25006" ||
      state == "53300")
    return Code::kUnavailable;
  if (group == "53" || group == "54") return Code::kResourceExhausted;
  if (group == "58") return Code::kIo;
  if (group == "28" || state == "42501") return Code::kPermissionDenied;
  if (group == "XX") return Code::kCorrupt;
  return Code::kInternal;
}

// libpq's messages end with a newline and may have several lines.
std::string one_line(const char* message) {
  std::string text = message ? message : "";
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

Blob from_hex(std::string_view text) {
  Blob bytes;
  if (!text.starts_with("\\x")) return bytes;
  bytes.resize((text.size() - 2) / 2);
  for (size_t i = 0; i < bytes.size(); ++i)
    std::from_chars(text.data() + 2 + 2 * i, text.data() + 4 + 2 * i, bytes[i], 16);
  return bytes;
}

template <typename T>
Value number(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

Value column_value(const PGresult* answer, int row, int column) {
  if (PQgetisnull(answer, row, column)) return std::monostate{};
  const std::string_view text(PQgetvalue(answer, row, column),
                              static_cast<size_t>(PQgetlength(answer, row, column)));
  switch (PQftype(answer, column)) {
    case kBool:
      return int64_t{text == "t"};
    case kInt2:
    case kInt4:
    case kInt8:
      return number<int64_t>(text);
    case kFloat4:
    case kFloat8:
      return number<double>(text);
    case kNumeric:  // of sums: whole where all terms are
      return text.find('.') == std::string_view::npos ? number<int64_t>(text) : number<double>(text);
    case kBytea:
      return from_hex(text);
    default:
      return std::string(text);
  }
}

// Parameters as libpq wants them.
struct Bound {
  explicit Bound(const std::vector<Value>& params) {
    texts.reserve(params.size());  // pointers into it stay valid
    for (const Value& value : params) add(value);
  }
  void add(const Value& value) {
    Oid type = 0;  // of NULL: what the statement needs there
    bool binary = false;
    const char* data = nullptr;
    size_t size = 0;
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      type = kInt8;
      data = texts.emplace_back(std::to_string(*integer)).c_str();
    } else if (const auto* real = std::get_if<double>(&value)) {
      type = kFloat8;
      char text[32];
      std::snprintf(text, sizeof text, "%.17g", *real);
      data = texts.emplace_back(text).c_str();
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      type = kText;
      binary = true;  // of text that is its bytes
      data = text->data();
      size = text->size();
    } else if (const auto* blob = std::get_if<Blob>(&value)) {
      type = kBytea;
      binary = true;
      data = blob->empty() ? "" : reinterpret_cast<const char*>(blob->data());
      size = blob->size();
    }
    types.push_back(type);
    values.push_back(data);
    lengths.push_back(static_cast<int>(size));
    formats.push_back(binary ? 1 : 0);
  }
  int count() const { return static_cast<int>(types.size()); }

  std::vector<std::string> texts;
  std::vector<Oid> types;
  std::vector<const char*> values;
  std::vector<int> lengths;
  std::vector<int> formats;
};

// The connection with its prepared statements; the caller holds the database's mutex.
class Session final : public Statements {
 public:
  Session(std::string url, std::string description, PostgresOptions options)
      : url_(std::move(url)), description_(std::move(description)), options_(options) {}

  const std::string& description() const { return description_; }

  // A live connection, made anew where the old one has ended.
  Status connect() {
    if (connection_ && PQconsumeInput(connection_.get()) == 1 && PQstatus(connection_.get()) == CONNECTION_OK)
      return {};
    connection_.reset();
    statements_.clear();
    const SteadyTime now = std::chrono::steady_clock::now();
    if (!failure_.ok() && now < try_again_) return failure_;
    failure_ = make_connection();
    if (failure_.ok()) {
      if (std::exchange(connected_before_, true))
        obs::log_info("store", "connected to the database again", {{"database", description_}});
      return {};
    }
    connection_.reset();
    try_again_ = now + options_.retry_after;
    return failure_;
  }

  Result<Rows> execute(std::string_view sql, const std::vector<Value>& params) override {
    const size_t highest = highest_parameter(sql);
    if (highest != params.size())
      return internal_error(std::to_string(params.size()) + " values for " + std::to_string(highest) +
                            " parameters: " + std::string(sql));
    const Bound bound(params);
    TESSERA_ASSIGN_OR_RETURN(const std::string name, prepared(sql, bound));
    if (!PQsendQueryPrepared(connection_.get(), name.c_str(), bound.count(), bound.values.data(),
                             bound.lengths.data(), bound.formats.data(), 0))
      return lost();
    TESSERA_ASSIGN_OR_RETURN(const Answer answer, receive());
    return rows_of(answer.get());
  }

  // One that answers nothing.
  Status command(const std::string& sql) {
    if (!PQsendQuery(connection_.get(), sql.c_str())) return lost();
    return receive().status();
  }

  Status script(std::string_view sql) override {
    for (const std::string& statement : split_statements(sql))
      TESSERA_RETURN_IF_ERROR(command(to_postgres(statement)));
    return {};
  }

  Status begin() {
    // Turns are what SQLite's lock gives: whoever reads and then writes in one transaction is alone.
    return command("BEGIN; SELECT pg_advisory_xact_lock(" + std::to_string(kTurnLock) + ")");
  }
  Status commit() {
    Status status = command("COMMIT");
    if (!status.ok() && !connection_) return status.with_context("whether it committed is not known");
    return status;
  }
  void rollback() {
    if (connection_ && PQtransactionStatus(connection_.get()) != PQTRANS_IDLE) (void)command("ROLLBACK");
  }

 private:
  Status make_connection() {
    const std::string seconds = std::to_string(std::max<int64_t>(
        2, std::chrono::duration_cast<std::chrono::seconds>(options_.connect_timeout).count()));
    // The url comes last: what it says itself counts.
    const char* const keys[] = {"connect_timeout", "application_name", "tcp_user_timeout",
                                "client_encoding", "dbname",           nullptr};
    const char* const values[] = {seconds.c_str(), "tessera", "10000", "UTF8", url_.c_str(), nullptr};
    connection_.reset(PQconnectdbParams(keys, values, /*expand_dbname=*/1));
    if (PQstatus(connection_.get()) != CONNECTION_OK)
      return unavailable("no connection to " + description_ + ": " +
                         one_line(PQerrorMessage(connection_.get())));
    PQsetNoticeProcessor(
        connection_.get(), [](void*, const char*) {}, nullptr);
    if (PQserverVersion(connection_.get()) < kOldestServer)
      return unsupported(description_ + " is older than PostgreSQL 15: upgrade it");
    const char* encoding = PQparameterStatus(connection_.get(), "server_encoding");
    if (encoding == nullptr || std::string_view(encoding) != "UTF8")
      return unsupported(description_ + " does not store UTF-8: create the database with ENCODING 'UTF8'");
    PQsetnonblocking(connection_.get(), 0);
    const auto ms = [](milliseconds time) { return std::to_string(time.count()); };
    // A gateway that stops in the middle of a transaction must not hold up the others for ever.
    TESSERA_RETURN_IF_ERROR(command("SET lock_timeout = " + ms(options_.lock_timeout)));
    TESSERA_RETURN_IF_ERROR(command("SET statement_timeout = " + ms(options_.statement_timeout)));
    TESSERA_RETURN_IF_ERROR(
        command("SET idle_in_transaction_session_timeout = " + ms(options_.statement_timeout)));
    // What is acknowledged is on the disk, whatever the server's default is.
    return command(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'");
  }

  // The name of the statement, prepared for these types.
  Result<std::string> prepared(std::string_view sql, const Bound& bound) {
    std::string key(sql);
    for (const Oid type : bound.types) key += '\0' + std::to_string(type);
    if (auto found = statements_.find(key); found != statements_.end()) return found->second;
    if (statements_.size() >= kStatementsKept) {
      statements_.clear();
      TESSERA_RETURN_IF_ERROR(command("DEALLOCATE ALL"));
    }
    const std::string name = "s" + std::to_string(++last_statement_);
    if (!PQsendPrepare(connection_.get(), name.c_str(), to_postgres(sql).c_str(), bound.count(),
                       bound.types.data()))
      return lost();
    TESSERA_RETURN_IF_ERROR(receive().status());
    statements_.emplace(std::move(key), name);
    return name;
  }

  // The last answer to what was sent, or the first error.
  Result<Answer> receive() {
    // The server ends a statement at its timeout; one that says nothing a little later is gone.
    const SteadyTime deadline =
        std::chrono::steady_clock::now() + options_.statement_timeout + milliseconds(2000);
    Answer last;
    std::optional<Status> error;
    for (;;) {
      TESSERA_RETURN_IF_ERROR(wait_until(deadline));
      Answer answer(PQgetResult(connection_.get()));
      if (!answer) break;
      const ExecStatusType status = PQresultStatus(answer.get());
      const bool good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
      if (!good && !error) error = error_of(answer.get());
      last = std::move(answer);
    }
    if (PQstatus(connection_.get()) != CONNECTION_OK) return lost();
    if (error) return *error;
    if (!last) return internal_error(description_ + ": no answer to a statement");
    return last;
  }

  // Returns when PQgetResult() would not block.
  Status wait_until(SteadyTime deadline) {
    for (;;) {
      if (PQflush(connection_.get()) < 0) return lost();
      if (!PQisBusy(connection_.get())) return {};
      const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now()).count();
      pollfd waiting{PQsocket(connection_.get()), POLLIN, 0};
      const int ready = left <= 0 ? 0 : ::poll(&waiting, 1, static_cast<int>(left));
      if (ready == 0) {
        connection_.reset();
        return unavailable(description_ + " does not answer");
      }
      if (ready < 0 && errno != EINTR) return lost();
      if (ready > 0 && PQconsumeInput(connection_.get()) != 1) return lost();
    }
  }

  // The connection has ended under a statement.
  Status lost() {
    Status status = unavailable("the connection to " + description_ +
                                " ended: " + one_line(PQerrorMessage(connection_.get())));
    connection_.reset();
    return status;
  }

  Status error_of(const PGresult* answer) const {
    if (PQresultStatus(answer) == PGRES_EMPTY_QUERY)
      return internal_error(description_ + ": empty statement");
    const char* state = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
    const char* message = PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY);
    return {state ? code_of(state) : Code::kUnavailable,
            description_ + ": " + one_line(message ? message : PQresultErrorMessage(answer))};
  }

  static Rows rows_of(const PGresult* answer) {
    Rows result;
    const int rows = PQntuples(answer), columns = PQnfields(answer);
    result.rows.resize(static_cast<size_t>(rows));
    for (int r = 0; r < rows; ++r) {
      Row& row = result.rows[static_cast<size_t>(r)];
      row.reserve(static_cast<size_t>(columns));
      for (int c = 0; c < columns; ++c) row.push_back(column_value(answer, r, c));
    }
    // "INSERT 0 3", "UPDATE 3", "SELECT 3": the last says nothing of changes.
    const std::string_view done = PQcmdStatus(const_cast<PGresult*>(answer));
    if (!done.starts_with("SELECT"))
      result.changed = std::get<int64_t>(number<int64_t>(PQcmdTuples(const_cast<PGresult*>(answer))));
    return result;
  }

  const std::string url_;
  const std::string description_;
  const PostgresOptions options_;
  Connection connection_;
  std::unordered_map<std::string, std::string> statements_;  // text and types → name
  uint64_t last_statement_ = 0;
  bool connected_before_ = false;
  Status failure_;  // why there is no connection
  SteadyTime try_again_;
};

class PostgresDatabase final : public Database {
 public:
  PostgresDatabase(const std::string& url, std::string description, PostgresOptions options)
      : description_(std::move(description)), session_(url, description_, options) {}

  Status connect() {
    MutexLock lock(mutex_);
    return session_.connect();
  }
  Result<Rows> execute(std::string_view sql, const std::vector<Value>& params) override {
    MutexLock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(session_.connect());
    return session_.execute(sql, params);
  }
  Status script(std::string_view sql) override {
    MutexLock lock(mutex_);
    TESSERA_RETURN_IF_ERROR(session_.connect());
    return session_.script(sql);
  }
  Status transaction(const std::function<Status(Statements&)>& body) override {
    MutexLock lock(mutex_);
    return run(body);
  }
  const std::string& description() const override { return description_; }

 private:
  Status run(const std::function<Status(Statements&)>& body) TESSERA_REQUIRES(mutex_) {
    TESSERA_RETURN_IF_ERROR(session_.connect());
    // Ends the transaction if the body leaves by an exception, or the commit fails.
    struct Rollback {
      Session& session;
      ~Rollback() { session.rollback(); }
    } rollback{session_};
    TESSERA_RETURN_IF_ERROR(session_.begin());
    TransactionStatements transaction(session_);
    TESSERA_RETURN_IF_ERROR(body(transaction));
    TESSERA_RETURN_IF_ERROR(transaction.failure());
    return session_.commit();
  }

  const std::string description_;
  Mutex mutex_;
  Session session_ TESSERA_GUARDED_BY(mutex_);
};

// "postgresql://HOST:PORT/NAME": where it is, without who asks.
Result<std::string> describe(const std::string& url) {
  char* problem = nullptr;
  const std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> options(
      PQconninfoParse(url.c_str(), &problem), PQconninfoFree);
  if (!options) {
    // libpq quotes the url, which may hold a password.
    PQfreemem(problem);
    return invalid_argument("this is no PostgreSQL url: write postgresql://USER@HOST:PORT/DATABASE");
  }
  std::string host = "localhost", port, name;
  for (const PQconninfoOption* o = options.get(); o->keyword != nullptr; ++o) {
    if (o->val == nullptr) continue;
    const std::string_view key = o->keyword;
    if (key == "host") host = o->val;
    if (key == "port") port = std::string(":") + o->val;
    if (key == "dbname") name = o->val;
  }
  return "postgresql://" + host + port + "/" + name;
}

}  // namespace

Result<std::unique_ptr<Database>> open_postgres(const std::string& url, PostgresOptions options) {
  TESSERA_ASSIGN_OR_RETURN(std::string description, describe(url));
  auto database = std::make_unique<PostgresDatabase>(url, std::move(description), options);
  TESSERA_RETURN_IF_ERROR(database->connect());
  return std::unique_ptr<Database>(std::move(database));
}

}  // namespace tessera::store
