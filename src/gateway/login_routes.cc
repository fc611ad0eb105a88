#include "gateway/login_routes.h"

#include <nlohmann/json.hpp>

#include "api/field_reader.h"
#include "gateway/key_authenticator.h"
#include "gateway/query.h"

namespace tessera::gateway {
namespace {

constexpr int kMostPending = 32;
constexpr int64_t kPageSize = 100, kMostPageSize = 1000;

Json user_json(const control::User& user) {
  return {{"username", user.name},
          {"role", user.role},
          {"disabled", user.disabled},
          {"created_at", time_json(user.created_unix_ms)}};
}

JsonAnswer denied(const Status& status) {
  if (status.code() == Code::kPermissionDenied) return unauthorized(status.message());
  return api::error_from_status(status);
}

}  // namespace

// Without a key, so the work that may wait is bounded.
Route LoginRoutes::login_route(std::string path, std::function<JsonAnswer(const Call&)> run) {
  Route route =
      json_route("POST", std::move(path), Access::kOpen, work_, [this, run = std::move(run)](const Call& c) {
        JsonAnswer answer = run(c);
        --pending_;
        return answer;
      });
  route.audited = true;
  route.run = [this, inner = std::move(route.run)](const Call& call) {
    if (++pending_ > kMostPending) {
      --pending_;
      return call.answer(api::error_response(
          api::error_from_status(resource_exhausted("Too many logins at a time; try again."))));
    }
    inner(call);
  };
  return route;
}

std::vector<Route> LoginRoutes::routes() {
  const std::string users = "/api/v1/admin/users";
  const auto admin = [this](std::string method, std::string path, auto run) {
    return json_route(std::move(method), std::move(path), Access::kAdmin, work_, std::move(run));
  };
  std::vector<Route> all = {
      login_route("/api/v1/auth/login", [this](const Call& c) { return login(c); }),
      login_route("/api/v1/auth/refresh", [this](const Call& c) { return refresh(c); }),
      json_route("POST", "/api/v1/auth/logout", Access::kClient, work_,
                 [this](const Call& c) { return logout(c); }),
      admin("GET", users, [this](const Call&) { return list_users(); }),
      admin("POST", users, [this](const Call& c) { return add_user(c); }),
      admin("PUT", users + "/{name}", [this](const Call& c) { return change_user(c); }),
      admin("DELETE", users + "/{name}", [this](const Call& c) { return remove_user(c); }),
      admin("GET", "/api/v1/admin/audit", [this](const Call& c) { return entries(c); }),
      admin("GET", "/api/v1/admin/audit/verify", [this](const Call&) { return verify(); })};
  all[2].audited = true;
  return all;
}

namespace {

JsonAnswer tokens_json(const Result<control::LoginTokens>& tokens, int64_t now_ms) {
  if (!tokens.ok()) return denied(tokens.status());
  return Json{{"access_token", tokens->access},
              {"token_type", "Bearer"},
              {"expires_in", (tokens->access_expires_unix_ms - now_ms) / 1000},
              {"refresh_token", tokens->refresh},
              {"refresh_expires_in", (tokens->refresh_expires_unix_ms - now_ms) / 1000},
              {"username", tokens->user.name},
              {"role", tokens->user.role}};
}

}  // namespace

JsonAnswer LoginRoutes::login(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  const std::string name = fields.text("username"), password = fields.text("password");
  if (!fields.ok()) return *fields.error();
  const std::string identity = "user/" + name;
  const std::string& address = call.request->remote_address;
  if (lockout_.locked(identity, address)) return locked_out();
  const auto tokens = users_.login(name, password);
  if (tokens.ok())
    lockout_.succeeded(identity, address);
  else if (tokens.status().code() == Code::kPermissionDenied && lockout_.failed(identity, address))
    return locked_out();
  return tokens_json(tokens, clock_.unix_time_ms());
}

JsonAnswer LoginRoutes::refresh(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  const std::string token = fields.text("refresh_token");
  if (!fields.ok()) return *fields.error();
  const auto tokens = users_.refresh(token);
  changed_();  // the access token before is void
  return tokens_json(tokens, clock_.unix_time_ms());
}

JsonAnswer LoginRoutes::logout(const Call& call) {
  const Status status = users_.logout(sent_key(*call.request));
  changed_();
  if (!status.ok()) return api::error_from_status(status);
  return Json{{"status", "logged out"}};
}

JsonAnswer LoginRoutes::list_users() {
  return answer_of(users_.list(), [](const std::vector<control::User>& all) {
    Json list = Json::array();
    for (const control::User& user : all) list.push_back(user_json(user));
    return Json{{"users", std::move(list)}};
  });
}

JsonAnswer LoginRoutes::add_user(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  const std::string name = fields.text("username"), role = fields.text("role", "viewer"),
                    password = fields.text("password");
  if (!fields.ok()) return *fields.error();
  return answer_of(users_.add(name, role, password), user_json);
}

JsonAnswer LoginRoutes::change_user(const Call& call) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return std::move(*error);
  api::FieldReader fields(std::get<Json>(body));
  std::optional<std::string> role, password;
  std::optional<bool> disabled;
  if (fields.find("role")) role = fields.text("role");
  if (fields.find("password")) password = fields.text("password");
  if (fields.find("disabled")) disabled = fields.boolean("disabled", false);
  if (!fields.ok()) return *fields.error();
  const auto user = users_.change(call.parameters[0], role, password, disabled);
  changed_();
  return answer_of(user, user_json);
}

JsonAnswer LoginRoutes::remove_user(const Call& call) {
  const Status status = users_.remove(call.parameters[0]);
  changed_();
  if (!status.ok()) return api::error_from_status(status);
  return Json{{"username", call.parameters[0]}, {"status", "removed"}};
}

JsonAnswer LoginRoutes::entries(const Call& call) {
  const Page page = page_of(call, kPageSize, kMostPageSize);
  return answer_of(
      audit_.entries(page.size, page.offset()), [&](const std::vector<control::AuditEntry>& all) {
        Json list = Json::array();
        for (const control::AuditEntry& e : all)
          list.push_back({{"number", e.number},
                          {"time", time_json(e.unix_ms)},
                          {"actor", e.actor},
                          {"address", e.address},
                          {"action", e.action},
                          {"target", e.target},
                          {"status", e.status},
                          {"seal", to_hex(e.seal)}});
        return Json{{"entries", std::move(list)}, {"page", page.number}, {"page_size", page.size}};
      });
}

JsonAnswer LoginRoutes::verify() {
  return answer_of(audit_.verify(), [](const control::AuditVerdict& verdict) {
    return Json{{"entries", verdict.entries},
                {"intact", verdict.broken_at == 0},
                {"broken_at", verdict.broken_at == 0 ? Json() : Json(verdict.broken_at)},
                {"problem", verdict.problem},
                {"last_seal", to_hex(verdict.last)}};
  });
}

}  // namespace tessera::gateway
