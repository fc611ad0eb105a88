#include "gateway/tenant_routes.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "api/field_reader.h"

namespace tessera::gateway {
namespace {

using control::ApiKey;
using control::ApiKeyTerms;
using control::Enterprise;
using control::EnterpriseProfile;
using control::kNano;

constexpr int64_t kMostCount = int64_t{1} << 40;
constexpr double kMostMoney = 1e9;
constexpr int64_t kDay_ms = 24 * 3600 * 1000;

double money(int64_t nano) {
  return static_cast<double>(nano) / static_cast<double>(kNano);
}

int64_t read_money(api::FieldReader& fields, const char* name, int64_t fallback, double low) {
  if (!fields.find(name)) return fallback;
  return std::llround(fields.number(name, 0, low, kMostMoney) * static_cast<double>(kNano));
}

Json key_json(const ApiKey& key) {
  const ApiKeyTerms& t = key.terms;
  return {{"id", key.id},
          {"enterprise_id", key.enterprise},
          {"name", t.name},
          {"prefix", key.prefix},
          {"allowed_models", t.models},
          {"allowed_types", t.types},
          {"ip_whitelist", t.addresses},
          {"rate_limit_per_minute", t.requests_per_minute},
          {"tokens_per_minute", t.tokens_per_minute},
          {"daily_limit", t.requests_per_day},
          {"max_concurrent", t.max_concurrent},
          {"require_signature", t.require_signature},
          {"expires_at", time_json(t.expires_unix_ms)},
          {"created_at", time_json(key.created_unix_ms)},
          {"rotated_at", time_json(key.rotated_unix_ms)},
          {"revoked_at", time_json(key.revoked_unix_ms)},
          {"is_active", key.revoked_unix_ms == 0}};
}

Json new_key_json(const control::NewApiKey& made) {
  Json json = key_json(made.key);
  json["api_key"] = made.secret;
  return json;
}

Json limits_json(const api::KeyLimits& limits) {
  return {{"requests_per_minute", limits.requests_per_minute},
          {"tokens_per_minute", limits.tokens_per_minute},
          {"requests_per_day", limits.requests_per_day},
          {"max_concurrent", limits.concurrent}};
}

// What is given replaces what `p` says.
api::ApiResult<EnterpriseProfile> read_profile(const Json& body, EnterpriseProfile p) {
  api::FieldReader fields(body);
  for (auto [name, text] : {std::pair{"name", &p.name},
                            {"code", &p.code},
                            {"contact_name", &p.contact_name},
                            {"contact_email", &p.contact_email},
                            {"contact_phone", &p.contact_phone},
                            {"billing_email", &p.billing_email},
                            {"billing_period", &p.billing_period},
                            {"plan", &p.plan}})
    *text = fields.text(name, *text);
  for (auto [name, flag] : {std::pair{"prepaid", &p.prepaid},
                            {"allow_logging", &p.allow_logging},
                            {"anonymize_data", &p.anonymize_data},
                            {"is_active", &p.is_active}})
    *flag = fields.boolean(name, *flag);
  for (auto [name, count] : {std::pair{"data_retention_days", &p.data_retention_days},
                             {"requests_per_minute", &p.requests_per_minute},
                             {"tokens_per_minute", &p.tokens_per_minute},
                             {"max_concurrent", &p.max_concurrent},
                             {"weight", &p.weight}})
    *count = fields.integer(name, *count, 0, kMostCount);
  p.monthly_budget = read_money(fields, "monthly_budget", p.monthly_budget, 0);
  p.credit_balance = read_money(fields, "credit_balance", p.credit_balance, -kMostMoney);
  if (const Json* prices = fields.find("custom_pricing")) {
    if (!prices->is_object()) fields.fail("custom_pricing", "'custom_pricing' must be an object of prices.");
    p.custom_pricing = dump_json(*prices);
  }
  if (!fields.ok()) return *fields.error();
  return p;
}

}  // namespace

Json enterprise_json(const Enterprise& enterprise) {
  const EnterpriseProfile& p = enterprise.profile;
  const Result<Json> prices = parse_json(p.custom_pricing);
  return {{"id", enterprise.id},
          {"name", p.name},
          {"code", p.code},
          {"contact_name", p.contact_name},
          {"contact_email", p.contact_email},
          {"contact_phone", p.contact_phone},
          {"billing_email", p.billing_email},
          {"billing_period", p.billing_period},
          {"monthly_budget", money(p.monthly_budget)},
          {"credit_balance", money(p.credit_balance)},
          {"prepaid", p.prepaid},
          {"plan", p.plan},
          {"custom_pricing", prices.ok() ? *prices : Json::object()},
          {"data_retention_days", p.data_retention_days},
          {"allow_logging", p.allow_logging},
          {"anonymize_data", p.anonymize_data},
          {"is_active", p.is_active},
          {"requests_per_minute", p.requests_per_minute},
          {"tokens_per_minute", p.tokens_per_minute},
          {"max_concurrent", p.max_concurrent},
          {"weight", p.weight},
          {"created_at", time_json(enterprise.created_unix_ms)},
          {"updated_at", time_json(enterprise.updated_unix_ms)}};
}

std::vector<Route> TenantRoutes::routes() {
  const auto route = [this](std::string method, std::string path, auto run) {
    const Access access = method == "GET" ? Access::kViewer : Access::kAdmin;
    return json_route(std::move(method), std::move(path), access, work_, std::move(run));
  };
  const std::string all = "/api/v1/admin/enterprises";
  const std::string one = all + "/{id}";
  const std::string keys = one + "/api-keys";
  return {route("GET", all, [this](const Call&) { return list_enterprises(); }),
          route("POST", all, [this](const Call& c) { return create_enterprise(c); }),
          route("GET", one,
                [this](const Call& c) {
                  return answer_of(tenants_.find_enterprise(c.parameters[0]), enterprise_json);
                }),
          route("PUT", one, [this](const Call& c) { return update_enterprise(c); }),
          route("GET", keys, [this](const Call& c) { return list_keys(c.parameters[0]); }),
          route("POST", keys, [this](const Call& c) { return create_key(c); }),
          route("DELETE", keys + "/{key}", [this](const Call& c) { return revoke_key(c); }),
          route("POST", keys + "/{key}/rotate", [this](const Call& c) { return rotate_key(c); }),
          route("GET", "/api/v1/admin/api-keys", [this](const Call&) { return list_keys({}); }),
          json_route("GET", "/api/v1/me", Access::kClient, work_, [this](const Call& c) { return me(c); })};
}

JsonAnswer TenantRoutes::list_enterprises() {
  return answer_of(tenants_.list_enterprises(), [](const std::vector<Enterprise>& all) {
    Json list = Json::array();
    for (const Enterprise& enterprise : all) list.push_back(enterprise_json(enterprise));
    return Json{{"enterprises", std::move(list)}};
  });
}

JsonAnswer TenantRoutes::create_enterprise(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  auto profile = read_profile(std::get<Json>(body), {});
  if (auto* error = std::get_if<api::ApiError>(&profile)) return std::move(*error);
  return answer_of(tenants_.create_enterprise(std::get<EnterpriseProfile>(profile)), enterprise_json);
}

JsonAnswer TenantRoutes::update_enterprise(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  const Result<Enterprise> present = tenants_.find_enterprise(call.parameters[0]);
  if (!present.ok()) return api::error_from_status(present.status());
  auto profile = read_profile(std::get<Json>(body), present->profile);
  if (auto* error = std::get_if<api::ApiError>(&profile)) return std::move(*error);
  const auto& wanted = std::get<EnterpriseProfile>(profile);
  std::optional<int64_t> credit;
  if (std::get<Json>(body).contains("credit_balance")) credit = wanted.credit_balance;
  const auto updated = tenants_.update_enterprise(present->id, wanted, credit);
  changed_();
  return answer_of(updated, enterprise_json);
}

JsonAnswer TenantRoutes::list_keys(const std::string& enterprise) {
  return answer_of(tenants_.list_keys(enterprise), [](const std::vector<ApiKey>& all) {
    Json list = Json::array();
    for (const ApiKey& key : all) list.push_back(key_json(key));
    return Json{{"api_keys", std::move(list)}};
  });
}

JsonAnswer TenantRoutes::create_key(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  ApiKeyTerms terms;
  terms.name = fields.text("name");
  terms.models = fields.texts("allowed_models");
  terms.types = fields.texts("allowed_types");
  terms.addresses = fields.texts("ip_whitelist");
  terms.requests_per_minute = fields.integer("rate_limit_per_minute", 0, 0, kMostCount);
  terms.tokens_per_minute = fields.integer("tokens_per_minute", 0, 0, kMostCount);
  terms.requests_per_day = fields.integer("daily_limit", 0, 0, kMostCount);
  terms.max_concurrent = fields.integer("max_concurrent", 0, 0, kMostCount);
  terms.require_signature = fields.boolean("require_signature", false);
  const double days = fields.number("expires_days", 0, 0, 36500);
  if (!fields.ok()) return *fields.error();
  if (days > 0)
    terms.expires_unix_ms = clock_.unix_time_ms() + std::llround(days * static_cast<double>(kDay_ms));
  return answer_of(tenants_.create_key(call.parameters[0], terms), new_key_json);
}

JsonAnswer TenantRoutes::rotate_key(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  const int64_t grace_s = fields.integer("grace_seconds", 0, 0, control::Tenants::kLongestGrace_s);
  if (!fields.ok()) return *fields.error();
  const auto made = tenants_.rotate_key(call.parameters[0], call.parameters[1], grace_s);
  changed_();
  return answer_of(made, new_key_json);
}

JsonAnswer TenantRoutes::revoke_key(const Call& call) {
  const Status status = tenants_.revoke_key(call.parameters[0], call.parameters[1]);
  changed_();
  if (!status.ok()) return api::error_from_status(status);
  return Json{{"id", call.parameters[1]}, {"status", "revoked"}};
}

JsonAnswer TenantRoutes::me(const Call& call) {
  const api::Caller& caller = *call.caller;
  Json json{{"role", role_name(caller.role)},
            {"key", caller.key.empty() ? Json() : Json(caller.key)},
            {"enterprise_id", caller.tenant},
            {"allowed_models", caller.models},
            {"allowed_types", caller.types},
            {"limits", limits_json(caller.limits)},
            {"enterprise_limits", limits_json(caller.tenant_limits)}};
  const Result<Enterprise> enterprise = tenants_.find_enterprise(caller.tenant);
  if (!enterprise.ok()) return api::error_from_status(enterprise.status());
  json["enterprise"] = enterprise->profile.name;
  json["monthly_budget"] = money(enterprise->profile.monthly_budget);
  json["credit_balance"] = money(enterprise->profile.credit_balance);
  return json;
}

}  // namespace tessera::gateway
