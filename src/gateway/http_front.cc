#include "gateway/http_front.h"

#include <nlohmann/json.hpp>

#include "api/errors.h"
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
  call.writer = cors_.wrap(request, std::move(writer));
  call.request = std::make_shared<const net::HttpRequest>(std::move(request));
  call.parameters = match.parameters;
  if (match.open) {
    if (!match.route) return call.answer(not_here(match, call.request->path));
    return run(*match.route, call);
  }
  authenticator_.authenticate(call.request,
                              [this, call, match](api::ApiResult<api::CallerPtr> known) mutable {
                                if (auto* error = std::get_if<api::ApiError>(&known))
                                  return call.answer(refusal(*error));
                                call.caller = std::get<0>(std::move(known));
                                if (!match.route) return call.answer(not_here(match, call.request->path));
                                if (!may_enter(*call.caller, match.route->access))
                                  return call.answer(refusal(forbidden(match.route->access)));
                                run(*match.route, call);
                              });
}

void HttpFront::run(const Route& route, const Call& call) const {
  if (route.work && draining_)
    return call.answer(api::error_response(api::service_unavailable("The server is shutting down.")));
  route.run(call);
}

void HttpFront::complete(api::Endpoint endpoint, const Call& call) const {
  completions_.handle(endpoint, *call.request, *call.caller, call.writer, call.record);
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
