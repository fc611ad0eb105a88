#include "control/usage.h"

#include <chrono>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/secrets.h"
#include "store/transact.h"

namespace tessera::control {
namespace {

using store::integer_at;
using store::Row;
using store::Rows;
using store::Statements;
using store::text_at;
using store::Value;

// One entry for each version of the schema; released ones never change.
const std::vector<std::string_view> kMigrations = {
    R"sql(
CREATE TABLE price_plans (name TEXT PRIMARY KEY NOT NULL, prices TEXT NOT NULL) STRICT;
CREATE TABLE usage_records (
  id TEXT PRIMARY KEY NOT NULL,
  request_id TEXT NOT NULL,
  enterprise_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  type TEXT NOT NULL,
  model TEXT NOT NULL,
  status INTEGER NOT NULL,
  quantity INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER NOT NULL,
  amount INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_by_time ON usage_records (ended_ms);
CREATE INDEX usage_of_enterprise ON usage_records (enterprise_id, ended_ms);
CREATE TABLE usage_months (
  enterprise_id TEXT NOT NULL,
  month_ms INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (enterprise_id, month_ms)
) STRICT;
CREATE TABLE bills (
  id TEXT PRIMARY KEY NOT NULL,
  enterprise_id TEXT NOT NULL,
  from_ms INTEGER NOT NULL,
  to_ms INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  totals TEXT NOT NULL,
  lines TEXT NOT NULL,
  UNIQUE (enterprise_id, from_ms)
) STRICT;
)sql",
};

constexpr const char* kRecordColumns =
    "id, request_id, enterprise_id, key_id, type, model, status, quantity, prompt_tokens, cached_tokens, "
    "completion_tokens, started_ms, ended_ms, amount";
constexpr const char* kTotals =
    "COUNT(*), CAST(COALESCE(SUM(CASE WHEN status >= 400 THEN 1 ELSE 0 END), 0) AS BIGINT), "
    "CAST(COALESCE(SUM(quantity), 0) AS BIGINT), CAST(COALESCE(SUM(prompt_tokens), 0) AS BIGINT), "
    "CAST(COALESCE(SUM(cached_tokens), 0) AS BIGINT), CAST(COALESCE(SUM(completion_tokens), 0) AS BIGINT), "
    "CAST(COALESCE(SUM(amount), 0) AS BIGINT)";
constexpr size_t kIdBytes = 15;
constexpr int64_t kHour_ms = 3'600'000;
constexpr int64_t kDay_ms = 24 * kHour_ms;
constexpr int64_t kEpochWeekday = 3;  // 1 January 1970 was a Thursday: so many days after a Monday

UsageTotals totals_of(const Row& row, size_t first) {
  UsageTotals totals;
  size_t i = first;
  for (int64_t* field : {&totals.requests, &totals.failed, &totals.quantity, &totals.prompt_tokens,
                         &totals.cached_tokens, &totals.completion_tokens, &totals.amount})
    *field = integer_at(row, i++);
  return totals;
}

void add(UsageTotals& to, const UsageTotals& more) {
  to.requests += more.requests;
  to.failed += more.failed;
  to.quantity += more.quantity;
  to.prompt_tokens += more.prompt_tokens;
  to.cached_tokens += more.cached_tokens;
  to.completion_tokens += more.completion_tokens;
  to.amount += more.amount;
}

Json totals_text(const UsageTotals& t) {
  return {t.requests, t.failed, t.quantity, t.prompt_tokens, t.cached_tokens, t.completion_tokens, t.amount};
}
UsageTotals totals_from(const Json& list) {
  Row row;
  for (const Json& item : list) row.emplace_back(item.is_number_integer() ? item.get<int64_t>() : int64_t{0});
  return totals_of(row, 0);
}

UsageRecord record_of(const Row& row) {
  UsageRecord r;
  r.id = text_at(row, 0);
  r.request_id = text_at(row, 1);
  r.enterprise = text_at(row, 2);
  r.key = text_at(row, 3);
  if (auto type = parse_usage_type(text_at(row, 4)); type.ok()) r.type = *type;
  r.model = text_at(row, 5);
  r.status = static_cast<int>(integer_at(row, 6));
  r.quantity = integer_at(row, 7);
  r.prompt_tokens = integer_at(row, 8);
  r.cached_tokens = integer_at(row, 9);
  r.completion_tokens = integer_at(row, 10);
  r.started_unix_ms = integer_at(row, 11);
  r.ended_unix_ms = integer_at(row, 12);
  r.amount = integer_at(row, 13);
  return r;
}

Bill bill_of(const Row& row, bool with_lines) {
  Bill bill;
  bill.id = text_at(row, 0);
  bill.enterprise = text_at(row, 1);
  bill.from_unix_ms = integer_at(row, 2);
  bill.to_unix_ms = integer_at(row, 3);
  bill.created_unix_ms = integer_at(row, 4);
  if (const auto totals = parse_json(text_at(row, 5)); totals.ok()) bill.totals = totals_from(*totals);
  if (!with_lines) return bill;
  if (const auto lines = parse_json(text_at(row, 6)); lines.ok() && lines->is_object())
    for (const auto& [name, totals] : lines->items()) bill.lines.push_back({name, totals_from(totals)});
  return bill;
}
constexpr const char* kBillColumns = "id, enterprise_id, from_ms, to_ms, created_ms, totals, lines";

struct Where {
  std::string text;
  std::vector<Value> params;
};
Where where_of(const UsageQuery& query) {
  Where where;
  const auto term = [&](const std::string& condition, Value value) {
    where.params.push_back(std::move(value));
    where.text +=
        (where.text.empty() ? " WHERE " : " AND ") + condition + " $" + std::to_string(where.params.size());
  };
  term("ended_ms >=", query.from_unix_ms);
  term("ended_ms <", query.to_unix_ms);
  if (!query.enterprise.empty()) term("enterprise_id =", query.enterprise);
  if (!query.key.empty()) term("key_id =", query.key);
  if (!query.model.empty()) term("model =", query.model);
  return where;
}

// The expression to group by, and what one step of it is in milliseconds (0: a name).
struct Grouping {
  const char* expression;
  int64_t step_ms;
  int64_t offset_ms = 0;
};
Result<Grouping> grouping_of(const std::string& group_by) {
  if (group_by == "enterprise") return Grouping{"enterprise_id", 0};
  if (group_by == "key") return Grouping{"key_id", 0};
  if (group_by == "model") return Grouping{"model", 0};
  if (group_by == "type") return Grouping{"type", 0};
  if (group_by == "status") return Grouping{"status", 1};
  if (group_by == "hour") return Grouping{"ended_ms / 3600000", kHour_ms};
  if (group_by == "day" || group_by == "month") return Grouping{"ended_ms / 86400000", kDay_ms};
  if (group_by == "week")
    return Grouping{"(ended_ms / 86400000 + 3) / 7", 7 * kDay_ms, -kEpochWeekday * kDay_ms};
  return invalid_argument("'group_by' is enterprise, key, model, type, status, hour, day, week or month");
}

Result<UsageTotals> totals_in(Statements& sql, const UsageQuery& query) {
  const Where where = where_of(query);
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      sql.execute("SELECT " + std::string(kTotals) + " FROM usage_records" + where.text, where.params));
  return totals_of(rows.rows.at(0), 0);
}

Result<std::vector<UsageGroup>> summary_in(Statements& sql, const UsageQuery& query,
                                           const std::string& group_by) {
  TESSERA_ASSIGN_OR_RETURN(const Grouping grouping, grouping_of(group_by));
  const Where where = where_of(query);
  const std::string expression = grouping.expression;
  TESSERA_ASSIGN_OR_RETURN(const Rows rows,
                           sql.execute("SELECT " + expression + ", " + kTotals + " FROM usage_records" +
                                           where.text + " GROUP BY " + expression + " ORDER BY " + expression,
                                       where.params));
  std::vector<UsageGroup> groups;
  for (const Row& row : rows.rows) {
    UsageGroup group;
    int64_t moment = integer_at(row, 0) * grouping.step_ms + grouping.offset_ms;
    if (group_by == "month") moment = period_start("monthly", moment);
    group.name = grouping.step_ms == 0 ? text_at(row, 0) : std::to_string(moment);
    group.totals = totals_of(row, 1);
    if (!groups.empty() && groups.back().name == group.name)  // days of one month
      add(groups.back().totals, group.totals);
    else
      groups.push_back(std::move(group));
  }
  return groups;
}

Result<PriceList> prices_in(Statements& sql, const std::string& enterprise) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      sql.execute("SELECT e.custom_pricing, p.prices FROM enterprises e LEFT JOIN price_plans p "
                  "ON p.name = e.plan WHERE e.id = $1",
                  {enterprise}));
  PriceList prices = PriceList::defaults();
  if (rows.rows.empty()) return prices;
  // Checked when they were written; what no longer parses is as if it were not there.
  for (const size_t column : {size_t{1}, size_t{0}})
    if (const auto list = PriceList::parse(text_at(rows.rows[0], column)); list.ok())
      prices = list->over(prices);
  return prices;
}

}  // namespace

int64_t period_start(const std::string& period, int64_t unix_ms, int offset) {
  using std::chrono::floor;
  const std::chrono::sys_days day{floor<std::chrono::days>(
      std::chrono::sys_time<std::chrono::milliseconds>(std::chrono::milliseconds(unix_ms)))};
  std::chrono::sys_days start;
  if (period == "weekly") {
    const std::chrono::weekday weekday(day);
    start = day - (weekday - std::chrono::Monday) + std::chrono::weeks(offset);
  } else {
    const std::chrono::year_month_day date(day);
    start = (date.year() / date.month() + std::chrono::months(offset)) / std::chrono::day(1);
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(start.time_since_epoch()).count();
}

Result<std::unique_ptr<Usage>> Usage::open(store::Database& database, const Clock& clock) {
  TESSERA_RETURN_IF_ERROR(store::migrate(database, "usage", kMigrations));
  return std::unique_ptr<Usage>(new Usage(database, clock));
}

Result<std::string> Usage::draw_id() {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, random_text(kIdBytes));
  return "use_" + text;
}

Status Usage::record(std::vector<UsageRecord> records) {
  return database_.transaction([&](Statements& sql) -> Status {
    std::map<std::string, PriceList> prices;
    std::map<std::string, int64_t> owed;
    std::map<std::pair<std::string, int64_t>, int64_t> months;
    for (UsageRecord& r : records) {
      auto list = prices.find(r.enterprise);
      if (list == prices.end()) {
        TESSERA_ASSIGN_OR_RETURN(PriceList found, prices_in(sql, r.enterprise));
        list = prices.emplace(r.enterprise, std::move(found)).first;
      }
      r.amount = list->second.amount(r.type, r.quantity);
      TESSERA_ASSIGN_OR_RETURN(
          const Rows added,
          sql.execute("INSERT INTO usage_records (" + std::string(kRecordColumns) +
                          ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) "
                          "ON CONFLICT (id) DO NOTHING",
                      {r.id, r.request_id, r.enterprise, r.key, std::string(usage_type_name(r.type)), r.model,
                       int64_t{r.status}, r.quantity, r.prompt_tokens, r.cached_tokens, r.completion_tokens,
                       r.started_unix_ms, r.ended_unix_ms, r.amount}));
      if (added.changed == 0 || r.amount == 0) continue;
      owed[r.enterprise] += r.amount;
      months[{r.enterprise, period_start("monthly", r.ended_unix_ms)}] += r.amount;
    }
    // In one order everywhere, so that two gateways never wait for each other's rows.
    for (const auto& [enterprise, amount] : owed)
      TESSERA_RETURN_IF_ERROR(
          sql.execute("UPDATE enterprises SET credit_balance = credit_balance - $2 WHERE id = $1",
                      {enterprise, amount})
              .status());
    for (const auto& [month, amount] : months)
      TESSERA_RETURN_IF_ERROR(
          sql.execute("INSERT INTO usage_months (enterprise_id, month_ms, amount) VALUES ($1, $2, $3) "
                      "ON CONFLICT (enterprise_id, month_ms) DO UPDATE SET "
                      "amount = usage_months.amount + excluded.amount",
                      {month.first, month.second, amount})
              .status());
    return {};
  });
}

Result<std::vector<UsageRecord>> Usage::records(const UsageQuery& query, int64_t limit, int64_t offset) {
  Where where = where_of(query);
  where.params.emplace_back(limit);
  where.params.emplace_back(offset);
  const size_t count = where.params.size();
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows, database_.execute("SELECT " + std::string(kRecordColumns) + " FROM usage_records" +
                                             where.text + " ORDER BY ended_ms DESC, id LIMIT $" +
                                             std::to_string(count - 1) + " OFFSET $" + std::to_string(count),
                                         where.params));
  std::vector<UsageRecord> records;
  for (const Row& row : rows.rows) records.push_back(record_of(row));
  return records;
}

Result<UsageTotals> Usage::totals(const UsageQuery& query) {
  return totals_in(database_, query);
}

Result<std::vector<UsageGroup>> Usage::summary(const UsageQuery& query, const std::string& group_by) {
  return summary_in(database_, query, group_by);
}

Result<int64_t> Usage::spent_this_month(const std::string& enterprise) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      database_.execute("SELECT amount FROM usage_months WHERE enterprise_id = $1 AND month_ms = $2",
                        {enterprise, period_start("monthly", clock_.unix_time_ms())}));
  return rows.rows.empty() ? int64_t{0} : integer_at(rows.rows[0], 0);
}

Result<std::vector<PricePlan>> Usage::plans() {
  TESSERA_ASSIGN_OR_RETURN(const Rows rows,
                           database_.execute("SELECT name, prices FROM price_plans ORDER BY name"));
  std::vector<PricePlan> plans;
  for (const Row& row : rows.rows) {
    TESSERA_ASSIGN_OR_RETURN(PriceList prices, PriceList::parse(text_at(row, 1)));
    plans.push_back({text_at(row, 0), std::move(prices)});
  }
  return plans;
}

Status Usage::set_plan(const PricePlan& plan) {
  if (plan.name.empty() || plan.name.size() > 64) return invalid_argument("a plan's name has 1 to 64 bytes");
  return database_
      .execute(
          "INSERT INTO price_plans (name, prices) VALUES ($1, $2) "
          "ON CONFLICT (name) DO UPDATE SET prices = excluded.prices",
          {plan.name, plan.prices.text()})
      .status();
}

Status Usage::remove_plan(const std::string& name) {
  return database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(const Rows users,
                             sql.execute("SELECT code FROM enterprises WHERE plan = $1 LIMIT 1", {name}));
    if (!users.rows.empty()) return invalid_argument("'" + text_at(users.rows[0], 0) + "' pays by this plan");
    TESSERA_ASSIGN_OR_RETURN(const Rows gone, sql.execute("DELETE FROM price_plans WHERE name = $1", {name}));
    return gone.changed > 0 ? Status() : not_found("there is no price plan '" + name + "'");
  });
}

Result<PriceList> Usage::prices_of(const std::string& enterprise) {
  return prices_in(database_, enterprise);
}

Result<Bill> Usage::make_bill(const std::string& enterprise, int64_t unix_ms) {
  return store::transact<Bill>(database_, [&](Statements& sql) -> Result<Bill> {
    TESSERA_ASSIGN_OR_RETURN(
        const Rows owner, sql.execute("SELECT billing_period FROM enterprises WHERE id = $1", {enterprise}));
    if (owner.rows.empty()) return not_found("there is no enterprise '" + enterprise + "'");
    const std::string period = text_at(owner.rows[0], 0);
    Bill bill;
    bill.enterprise = enterprise;
    bill.from_unix_ms = period_start(period, unix_ms);
    bill.to_unix_ms = period_start(period, unix_ms, 1);
    bill.created_unix_ms = clock_.unix_time_ms();
    if (bill.to_unix_ms > bill.created_unix_ms)
      return invalid_argument("the period is not over yet: its bill is made then");
    TESSERA_ASSIGN_OR_RETURN(const Rows made,
                             sql.execute("SELECT " + std::string(kBillColumns) +
                                             " FROM bills WHERE enterprise_id = $1 AND from_ms = $2",
                                         {enterprise, bill.from_unix_ms}));
    if (!made.rows.empty()) return bill_of(made.rows[0], true);
    const UsageQuery query{enterprise, {}, {}, bill.from_unix_ms, bill.to_unix_ms};
    TESSERA_ASSIGN_OR_RETURN(bill.totals, totals_in(sql, query));
    TESSERA_ASSIGN_OR_RETURN(bill.lines, summary_in(sql, query, "type"));
    Json lines = Json::object();
    for (const UsageGroup& line : bill.lines) lines[line.name] = totals_text(line.totals);
    TESSERA_ASSIGN_OR_RETURN(const std::string drawn, random_text(9));
    bill.id = "bill_" + drawn;
    TESSERA_RETURN_IF_ERROR(
        sql.execute(
               "INSERT INTO bills (" + std::string(kBillColumns) + ") VALUES ($1, $2, $3, $4, $5, $6, $7)",
               {bill.id, bill.enterprise, bill.from_unix_ms, bill.to_unix_ms, bill.created_unix_ms,
                dump_json(totals_text(bill.totals)), dump_json(lines)})
            .status());
    return bill;
  });
}

Status Usage::make_due_bills() {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows all,
      database_.execute("SELECT id, billing_period, created_ms FROM enterprises ORDER BY id"));
  const int64_t now_ms = clock_.unix_time_ms();
  for (const Row& row : all.rows) {
    const int64_t last = period_start(text_at(row, 1), now_ms, -1);
    if (period_start(text_at(row, 1), integer_at(row, 2)) > last) continue;  // newer than the period
    TESSERA_RETURN_IF_ERROR(make_bill(text_at(row, 0), last).status());
  }
  return {};
}

Result<std::vector<Bill>> Usage::bills(const std::string& enterprise) {
  std::vector<Value> params;
  if (!enterprise.empty()) params.emplace_back(enterprise);
  TESSERA_ASSIGN_OR_RETURN(const Rows rows,
                           database_.execute("SELECT " + std::string(kBillColumns) + " FROM bills" +
                                                 (enterprise.empty() ? "" : " WHERE enterprise_id = $1") +
                                                 " ORDER BY from_ms DESC, enterprise_id",
                                             params));
  std::vector<Bill> bills;
  for (const Row& row : rows.rows) bills.push_back(bill_of(row, false));
  return bills;
}

Result<Bill> Usage::find_bill(const std::string& id) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      database_.execute("SELECT " + std::string(kBillColumns) + " FROM bills WHERE id = $1", {id}));
  if (rows.rows.empty()) return not_found("there is no bill '" + id + "'");
  return bill_of(rows.rows[0], true);
}

}  // namespace tessera::control
