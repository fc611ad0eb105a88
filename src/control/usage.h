// What was used and what it costs: one record for each request, kept in the database with its price; months
// and bills made of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "control/pricing.h"
#include "store/database.h"

namespace tessera::control {

struct UsageRecord {
  std::string id;          // drawn here for each request, so that a repeated write is found out
  std::string request_id;  // what the client knows it by; need not be unique
  std::string enterprise;
  std::string key;  // empty: none was asked for
  UsageType type = UsageType::kLlmTokens;
  std::string model;
  int status = 200;      // what the client got; 499: it went away
  int64_t quantity = 0;  // in the type's unit
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of prompt_tokens
  int64_t completion_tokens = 0;
  int64_t started_unix_ms = 0;
  int64_t ended_unix_ms = 0;
  int64_t amount = 0;  // nano; set when recorded
};

struct UsageQuery {
  std::string enterprise = {};  // id; empty: all
  std::string key = {};
  std::string model = {};
  int64_t from_unix_ms = 0;        // by the end of the request, inclusive
  int64_t to_unix_ms = INT64_MAX;  // exclusive
};

struct UsageTotals {
  int64_t requests = 0;
  int64_t failed = 0;  // of them: status 400 and more
  int64_t quantity = 0;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t amount = 0;  // nano
};
struct UsageGroup {
  std::string name;  // an id, a name, or the group's first moment as unix milliseconds
  UsageTotals totals;
};

struct PricePlan {
  std::string name;
  PriceList prices;
};

struct Bill {
  std::string id;
  std::string enterprise;
  int64_t from_unix_ms = 0, to_unix_ms = 0;  // the period; to is exclusive
  int64_t created_unix_ms = 0;
  UsageTotals totals;
  std::vector<UsageGroup> lines;  // by type
};

// First moment of the period ("monthly", "weekly": from Monday) of UTC that holds `unix_ms`, and of the one
// `offset` periods later.
int64_t period_start(const std::string& period, int64_t unix_ms, int offset = 0);

// Thread-safe, also between processes that share the database. Database and clock outlive it.
class Usage {
 public:
  // Makes or migrates its tables; those of Tenants must be there.
  static Result<std::unique_ptr<Usage>> open(store::Database& database, const Clock& clock);

  static Result<std::string> draw_id();
  // Prices the records, writes them and debits their enterprises, all or nothing; a record that was written
  // before changes nothing.
  Status record(std::vector<UsageRecord> records);

  Result<std::vector<UsageRecord>> records(const UsageQuery& query, int64_t limit,
                                           int64_t offset);  // newest first
  Result<UsageTotals> totals(const UsageQuery& query);
  // By "enterprise", "key", "model", "type", "status", "hour", "day", "week" or "month".
  Result<std::vector<UsageGroup>> summary(const UsageQuery& query, const std::string& group_by);
  // Of this month of UTC so far, nano.
  Result<int64_t> spent_this_month(const std::string& enterprise);

  Result<std::vector<PricePlan>> plans();
  Status set_plan(const PricePlan& plan);
  Status remove_plan(const std::string& name);
  // What the enterprise pays now: its own prices, then its plan's, then the defaults.
  Result<PriceList> prices_of(const std::string& enterprise);

  // The bill of the enterprise's period that holds `unix_ms`; made once, when the period is over:
  // InvalidArgument before that.
  Result<Bill> make_bill(const std::string& enterprise, int64_t unix_ms);
  // Makes the missing bills of all enterprises' last finished period.
  Status make_due_bills();
  Result<std::vector<Bill>> bills(
      const std::string& enterprise);  // newest first, without lines; all if empty
  Result<Bill> find_bill(const std::string& id);

 private:
  Usage(store::Database& database, const Clock& clock) : database_(database), clock_(clock) {}
  store::Database& database_;
  const Clock& clock_;
};

}  // namespace tessera::control
