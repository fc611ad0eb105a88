#include "gateway/usage_routes.h"

#include <charconv>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/field_reader.h"
#include "gateway/query.h"
#include "net/url.h"

namespace tessera::gateway {
namespace {

using control::Bill;
using control::UsageGroup;
using control::UsageQuery;
using control::UsageRecord;
using control::UsageTotals;

constexpr int64_t kPageSize = 100;
constexpr int64_t kMostPageSize = 10'000;

// "2026-12-01", "2026-12-01T08:30:00Z" or unix seconds, as unix milliseconds.
std::optional<int64_t> parse_time(const std::string& text) {
  int64_t seconds = 0;
  const char* end = text.data() + text.size();
  if (const auto read = std::from_chars(text.data(), end, seconds);
      read.ec == std::errc() && read.ptr == end && !text.empty() && seconds >= 0 &&
      seconds < int64_t{1} << 40)
    return seconds * 1000;
  int year = 0, hour = 0, minute = 0, second = 0, used = 0;
  unsigned month = 0, day = 0;
  if (std::sscanf(text.c_str(), "%4d-%2u-%2u%n", &year, &month, &day, &used) != 3) return std::nullopt;
  const std::string rest = text.substr(static_cast<size_t>(used));
  used = 0;
  if (!rest.empty() && (std::sscanf(rest.c_str(), "T%2d:%2d:%2dZ%n", &hour, &minute, &second, &used) != 3 ||
                        static_cast<size_t>(used) != rest.size()))
    return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) return std::nullopt;
  return (std::chrono::sys_days(date).time_since_epoch() / std::chrono::seconds(1) + hour * 3600LL +
          minute * 60 + second) *
         1000;
}

double money(int64_t nano) {
  return static_cast<double>(nano) / static_cast<double>(control::kNano);
}

OrderedJson totals_json(const UsageTotals& t) {
  return {{"requests", t.requests},           {"failed", t.failed},
          {"quantity", t.quantity},           {"prompt_tokens", t.prompt_tokens},
          {"cached_tokens", t.cached_tokens}, {"completion_tokens", t.completion_tokens},
          {"amount", money(t.amount)}};
}

OrderedJson record_json(const UsageRecord& r) {
  return {{"id", r.id},
          {"request_id", r.request_id},
          {"enterprise_id", r.enterprise},
          {"key", r.key},
          {"type", control::usage_type_name(r.type)},
          {"model", r.model},
          {"status", r.status},
          {"quantity", r.quantity},
          {"prompt_tokens", r.prompt_tokens},
          {"cached_tokens", r.cached_tokens},
          {"completion_tokens", r.completion_tokens},
          {"started_at", time_json(r.started_unix_ms)},
          {"ended_at", time_json(r.ended_unix_ms)},
          {"amount", money(r.amount)}};
}

bool groups_are_times(const std::string& group_by) {
  return group_by == "hour" || group_by == "day" || group_by == "week" || group_by == "month";
}

OrderedJson group_json(const UsageGroup& group, const std::string& group_by) {
  OrderedJson json{
      {group_by, groups_are_times(group_by) ? time_json(std::stoll(group.name)) : Json(group.name)}};
  json.update(totals_json(group.totals));
  return json;
}

Json bill_json(const Bill& bill) {
  Json lines = Json::array();
  for (const UsageGroup& line : bill.lines) lines.push_back(Json(group_json(line, "type")));
  return {{"id", bill.id},
          {"enterprise_id", bill.enterprise},
          {"period_start", time_json(bill.from_unix_ms)},
          {"period_end", time_json(bill.to_unix_ms)},
          {"created_at", time_json(bill.created_unix_ms)},
          {"totals", Json(totals_json(bill.totals))},
          {"amount", money(bill.totals.amount)},
          {"lines", std::move(lines)}};
}

Json plan_json(const control::PricePlan& plan) {
  const Result<Json> prices = parse_json(plan.prices.text());
  return {{"name", plan.name}, {"prices", prices.ok() ? *prices : Json::object()}};
}

// RFC 4180. A spreadsheet must not take a client's text for a formula.
std::string csv_field(const OrderedJson& value) {
  if (!value.is_string()) return value.is_null() ? "" : value.dump();
  auto text = value.get<std::string>();
  if (!text.empty() && std::string_view("=+-@\t\r").find(text[0]) != std::string_view::npos)
    text.insert(0, "'");
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

// The rows under `name`, beside `head`; or as CSV, whose columns are the first row's fields.
net::HttpResponse list_response(const Call& call, const char* name, const OrderedJson& rows,
                                OrderedJson head) {
  net::HttpResponse response;
  if (net::query_value(call.request->query, "format").value_or("json") != "csv") {
    head[name] = rows;
    response.body = dump_json(head);
    return response;
  }
  response.content_type = "text/csv; charset=utf-8";
  response.headers.emplace_back("Content-Disposition",
                                std::string("attachment; filename=\"") + name + ".csv\"");
  for (size_t i = 0; i < rows.size(); ++i) {
    const char* comma = "";
    if (i == 0) {
      for (const auto& [column, value] : rows[0].items()) response.body += std::exchange(comma, ",") + column;
      response.body += "\r\n";
      comma = "";
    }
    for (const auto& [column, value] : rows[i].items())
      response.body += std::exchange(comma, ",") + csv_field(value);
    response.body += "\r\n";
  }
  return response;
}

}  // namespace

std::vector<Route> UsageRoutes::routes() {
  const auto answering = [this](std::string path, Access access, auto run) {
    return Route{
        .method = "GET", .path = std::move(path), .access = access, .run = [this, run](const Call& call) {
          work_.post([call, run] { call.answer(run(call)); });
        }};
  };
  const std::string admin = "/api/v1/admin";
  const auto group_by = [](const Call& c, const char* fallback) {
    return net::query_value(c.request->query, "group_by").value_or(fallback);
  };
  return {
      answering(admin + "/usage/records", Access::kViewer, [this](const Call& c) { return records(c); }),
      answering(admin + "/usage/summary", Access::kViewer,
                [this, group_by](const Call& c) { return summary(c, {}, group_by(c, "enterprise")); }),
      answering(admin + "/enterprises/{id}/usage", Access::kViewer,
                [this, group_by](const Call& c) { return summary(c, c.parameters[0], group_by(c, "day")); }),
      answering("/api/v1/me/usage", Access::kClient,
                [this, group_by](const Call& c) { return summary(c, c.caller->tenant, group_by(c, "day")); }),
      json_route("GET", admin + "/price-plans", Access::kViewer, work_,
                 [this](const Call&) {
                   return answer_of(usage_.plans(), [](const std::vector<control::PricePlan>& all) {
                     Json list = Json::array();
                     for (const control::PricePlan& plan : all) list.push_back(plan_json(plan));
                     return Json{{"price_plans", std::move(list)},
                                 {"default", plan_json({"", control::PriceList::defaults()})["prices"]}};
                   });
                 }),
      json_route("PUT", admin + "/price-plans/{name}", Access::kAdmin, work_,
                 [this](const Call& c) { return set_plan(c); }),
      json_route("DELETE", admin + "/price-plans/{name}", Access::kAdmin, work_,
                 [this](const Call& c) -> JsonAnswer {
                   const Status status = usage_.remove_plan(c.parameters[0]);
                   if (!status.ok()) return api::error_from_status(status);
                   return Json{{"name", c.parameters[0]}, {"status", "removed"}};
                 }),
      json_route("GET", admin + "/bills", Access::kViewer, work_,
                 [this](const Call& c) { return list_bills(c); }),
      json_route("POST", admin + "/bills", Access::kAdmin, work_,
                 [this](const Call& c) { return make_bill(c); }),
      json_route("GET", admin + "/bills/{id}", Access::kViewer, work_,
                 [this](const Call& c) { return answer_of(usage_.find_bill(c.parameters[0]), bill_json); })};
}

UsageRoutes::Query UsageRoutes::read_query(const Call& call, std::string enterprise) {
  const std::string& text = call.request->query;
  UsageQuery query;
  if (enterprise.empty()) enterprise = net::query_value(text, "enterprise").value_or("");
  if (!enterprise.empty()) {
    const auto found = tenants_.find_enterprise(enterprise);
    if (!found.ok()) return api::error_from_status(found.status());
    query.enterprise = found->id;
  }
  query.key = net::query_value(text, "key").value_or("");
  query.model = net::query_value(text, "model").value_or("");
  for (auto [name, moment] :
       {std::pair{"start_time", &query.from_unix_ms}, {"end_time", &query.to_unix_ms}}) {
    const auto given = net::query_value(text, name);
    if (!given) continue;
    const auto time = parse_time(*given);
    if (!time)
      return api::invalid_request(
          "'" + std::string(name) + "' is a time like 2026-12-01T08:30:00Z, a date, or unix seconds.", name);
    *moment = *time;
  }
  return query;
}

net::HttpResponse UsageRoutes::records(const Call& call) {
  auto query = read_query(call, {});
  if (auto* error = std::get_if<api::ApiError>(&query)) return api::error_response(*error);
  const Page page = page_of(call, kPageSize, kMostPageSize);
  const auto found = usage_.records(std::get<UsageQuery>(query), page.size, page.offset());
  if (!found.ok()) return api::error_response(api::error_from_status(found.status()));
  OrderedJson rows = OrderedJson::array();
  for (const UsageRecord& record : *found) rows.push_back(record_json(record));
  return list_response(call, "records", rows, {{"page", page.number}, {"page_size", page.size}});
}

net::HttpResponse UsageRoutes::summary(const Call& call, const std::string& enterprise,
                                       const std::string& group_by) {
  auto query = read_query(call, enterprise);
  if (auto* error = std::get_if<api::ApiError>(&query)) return api::error_response(*error);
  const auto groups = usage_.summary(std::get<UsageQuery>(query), group_by);
  if (!groups.ok()) return api::error_response(api::error_from_status(groups.status()));
  const auto totals = usage_.totals(std::get<UsageQuery>(query));
  if (!totals.ok()) return api::error_response(api::error_from_status(totals.status()));
  OrderedJson rows = OrderedJson::array();
  for (const UsageGroup& group : *groups) rows.push_back(group_json(group, group_by));
  return list_response(call, "groups", rows, {{"group_by", group_by}, {"totals", totals_json(*totals)}});
}

JsonAnswer UsageRoutes::set_plan(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  const Json& json = std::get<Json>(body);
  const auto prices = json.find("prices");
  auto list = control::PriceList::parse(dump_json(prices == json.end() ? Json::object() : *prices));
  if (!list.ok()) return api::invalid_request(list.status().message(), "prices");
  const control::PricePlan plan{call.parameters[0], std::move(*list)};
  if (Status status = usage_.set_plan(plan); !status.ok()) return api::error_from_status(status);
  return plan_json(plan);
}

JsonAnswer UsageRoutes::list_bills(const Call& call) {
  auto query = read_query(call, {});
  if (auto* error = std::get_if<api::ApiError>(&query)) return std::move(*error);
  return answer_of(usage_.bills(std::get<UsageQuery>(query).enterprise), [](const std::vector<Bill>& all) {
    Json list = Json::array();
    for (const Bill& bill : all) list.push_back(bill_json(bill));
    return Json{{"bills", std::move(list)}};
  });
}

JsonAnswer UsageRoutes::make_bill(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  const std::string enterprise = fields.text("enterprise");
  const std::string time = fields.text("time");
  if (!fields.ok()) return *fields.error();
  const auto found = tenants_.find_enterprise(enterprise);
  if (!found.ok()) return api::error_from_status(found.status());
  const std::optional<int64_t> moment =
      time.empty() ? control::period_start(found->profile.billing_period, clock_.unix_time_ms(), -1)
                   : parse_time(time);
  if (!moment) return api::invalid_request("'time' is a time like 2026-12-01T08:30:00Z, or a date.", "time");
  return answer_of(usage_.make_bill(found->id, *moment), bill_json);
}

}  // namespace tessera::gateway
