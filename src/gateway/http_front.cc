#include "gateway/http_front.h"

#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "gateway/header_writer.h"
#include "gateway/text_routes.h"

namespace tessera::gateway {
namespace {

constexpr int kMaxTextPending = 64;  // texts waiting to be tokenised; more are refused

net::HttpResponse json_body(std::string body) {
  net::HttpResponse response;
  response.body = std::move(body);
  return response;
}

api::Role least_role(Access access) {
  return static_cast<api::Role>(static_cast<int>(access) - static_cast<int>(Access::kClient));
}

api::ApiError forbidden(Access access) {
  return api::error_from_status({Code::kPermissionDenied, "This needs the role '" +
                                                              std::string(role_name(least_role(access))) +
                                                              "', which the key does not have."});
}

bool may_enter(const api::Caller& caller, Access access) {
  return access == Access::kOpen || caller.role >= least_role(access);
}

net::HttpResponse not_here(const RouteTable::Match& match, const std::string& path) {
  if (match.path.empty()) {
    api::ApiError error = api::invalid_request("There is nothing at '" + path + "'.");
    error.status = 404;
    return api::error_response(error);
  }
  api::ApiError error = api::invalid_request("'" + path + "' takes " + match.allow + ".");
  error.status = 405;
  net::HttpResponse response = api::error_response(error);
  response.headers.emplace_back("Allow", match.allow);
  return response;
}

// The process lives; what it does without meanwhile.
Json health_json(const obs::Health& health) {
  Json json{{"status", "ok"}};
  for (const auto& [part, reason] : health.degraded()) {
    json["status"] = "degraded";
    json["degraded"][part] = reason;
  }
  return json;
}

Json routes_json(const RouteTable& table) {
  Json routes = Json::array();
  for (const Route& route : table.all())
    routes.push_back(
        {{"method", route.method},
         {"path", route.path},
         {"access", route.access == Access::kOpen ? "open" : role_name(least_role(route.access))}});
  return {{"routes", std::move(routes)}};
}

// Of every answer. None of ours is a page: nothing may be framed, run or guessed from it.
net::Headers security_headers(bool tls) {
  net::Headers headers = {{"X-Content-Type-Options", "nosniff"},
                          {"X-Frame-Options", "DENY"},
                          {"Referrer-Policy", "no-referrer"},
                          {"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"}};
  if (tls) headers.emplace_back("Strict-Transport-Security", "max-age=31536000");
  return headers;
}

net::HttpResponse refusal(const api::ApiError& error) {
  net::HttpResponse response = api::error_response(error);
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace

std::vector<Route> HttpFront::own_routes() {
  return {
      {.method = "POST",
       .path = "/v1/chat/completions",
       .access = Access::kClient,
       .run = [this](const Call& c) { complete(api::Endpoint::kChatCompletions, c); },
       .work = true},
      {.method = "POST",
       .path = "/v1/completions",
       .access = Access::kClient,
       .run = [this](const Call& c) { complete(api::Endpoint::kCompletions, c); },
       .work = true},
      {.method = "GET",
       .path = "/v1/models",
       .access = Access::kClient,
       .run = [this](const Call& c) { c.answer(models_route(*c.caller, models_)); }},
      {.method = "GET",
       .path = "/v1/models/{id...}",
       .access = Access::kClient,
       .run = [this](const Call& c) { c.answer(model_route(c.parameters[0], *c.caller, models_)); }},
      {.method = "POST",
       .path = "/tokenize",
       .access = Access::kClient,
       .run = [this](const Call& c) { work_on_text(c, tokenize_route); },
       .work = true},
      {.method = "POST",
       .path = "/detokenize",
       .access = Access::kClient,
       .run = [this](const Call& c) { work_on_text(c, detokenize_route); },
       .work = true},
      {.method = "GET",
       .path = "/health",
       .access = Access::kOpen,
       .run = [this](const Call& c) { c.answer(json_body(dump_json(health_json(readiness_.health())))); },
       .quiet = true},
      {.method = "GET",
       .path = "/ready",
       .access = Access::kOpen,
       .run = [this](const Call& c) { ready(c); },
       .quiet = true},
      {.method = "GET",
       .path = "/metrics",
       .access = Access::kViewer,
       .run =
           [this](const Call& c) {
             net::HttpResponse response = json_body(registry_.serialize());
             response.content_type = "text/plain; version=0.0.4; charset=utf-8";
             c.answer(std::move(response));
           },
       .quiet = true},
      {.method = "GET",
       .path = "/api/v1/routes",
       .access = Access::kViewer,
       .run = [this](const Call& c) { c.answer(json_body(dump_json(routes_json(table_)))); }},
      {.method = "GET",
       .path = "/",
       .access = Access::kClient,
       .run =
           [](const Call& c) {
             c.answer(json_body(R"({"service":"tessera","api":"/v1","health":"/health","ready":"/ready"})"));
           },
       .quiet = true},
  };
}

std::vector<Route> HttpFront::all_routes(const std::vector<RouteGroup*>& groups) {
  std::vector<Route> routes = own_routes();
  for (RouteGroup* group : groups)
    for (Route& route : group->routes()) routes.push_back(std::move(route));
  return routes;
}

HttpFront::HttpFront(FrontOptions options, Authenticator& authenticator, const api::ModelSet& models,
                     obs::Metrics& metrics, Readiness& readiness, Executor& work, const Clock& clock)
    : cors_(std::move(options.cors_origins)),
      models_(models),
      registry_(metrics),
      readiness_(readiness),
      work_(work),
      completions_(models, clock),
      metrics_(metrics, clock),
      authenticator_(authenticator),
      admission_(options.admission),
      audit_(options.audit),
      security_headers_(security_headers(options.tls)),
      table_(all_routes(options.groups)) {}

void HttpFront::handle(net::HttpRequest request, std::shared_ptr<net::ResponseWriter> writer) {
  RouteTable::Match match = table_.find(request.method, request.path);
  Call call;
  call.record = metrics_.begin({request.id, request.method, match.path.empty() ? "other" : match.path,
                                request.remote_address, match.route && match.route->quiet});
  if (auto preflight = cors_.preflight(request)) {
    writer->send(std::move(*preflight));
    call.record->on_end(204, {});
    return;
  }
  net::Headers headers = security_headers_;
  // What is administered is for nobody's cache.
  if (request.path.starts_with("/api/")) headers.emplace_back("Cache-Control", "no-store");
  call.writer = cors_.wrap(request, with_headers(std::move(writer), std::move(headers)));
  call.request = std::make_shared<const net::HttpRequest>(std::move(request));
  call.parameters = match.parameters;
  if (match.open) {
    if (!match.route) return call.answer(not_here(match, call.request->path));
    return enter(*match.route, std::move(call));
  }
  authenticator_.authenticate(call.request,
                              [this, call, match](api::ApiResult<api::CallerPtr> known) mutable {
                                if (auto* error = std::get_if<api::ApiError>(&known))
                                  return call.answer(refusal(*error));
                                call.caller = std::get<0>(std::move(known));
                                if (!match.route) return call.answer(not_here(match, call.request->path));
                                enter(*match.route, std::move(call));
                              });
}

void HttpFront::enter(const Route& route, Call call) const {
  if (audit_ != nullptr) call = audit_->follow(route, std::move(call));
  if (call.caller && !may_enter(*call.caller, route.access))
    return call.answer(refusal(forbidden(route.access)));
  run(route, call);
}

void HttpFront::run(const Route& route, const Call& call) const {
  if (route.work && draining_)
    return call.answer(api::error_response(api::service_unavailable("The server is shutting down.")));
  route.run(call);
}

void HttpFront::complete(api::Endpoint endpoint, const Call& call) const {
  const auto go = [this, endpoint](const Call& admitted) {
    completions_.handle(endpoint, *admitted.request, *admitted.caller, admitted.writer, admitted.record);
  };
  if (admission_ == nullptr) return go(call);
  admission_->admit(call, go);
}

std::vector<std::string> HttpFront::cut_running() const {
  return completions_.cut_running(
      api::service_unavailable("The server is shutting down and could not wait for this answer to end."));
}

void HttpFront::work_on_text(const Call& call, TextRoute* run) {
  if (++text_pending_ > kMaxTextPending) {
    --text_pending_;
    return call.answer(api::error_response(
        api::error_from_status(resource_exhausted("Too many texts are being tokenised; try again."))));
  }
  work_.post([this, call, run] {
    call.answer(run(call.request->body, *call.caller, models_));
    --text_pending_;
  });
}

void HttpFront::ready(const Call& call) const {
  if (draining_) return call.answer(api::error_response(api::service_unavailable("shutting down")));
  readiness_.check([call](const Status& status) {
    if (status.ok()) return call.answer(json_body(R"({"status":"ready"})"));
    api::ApiError error = api::error_from_status(status);
    error.code = "not_ready";
    call.answer(api::error_response(error));
  });
}

}  // namespace tessera::gateway
