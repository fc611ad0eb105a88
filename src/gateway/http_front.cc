#include "gateway/http_front.h"

#include "api/errors.h"
#include "gateway/text_routes.h"

namespace tessera::gateway {
namespace {

constexpr int kMaxTextPending = 64;  // texts waiting to be tokenised; more are refused
constexpr char kModelPrefix[] = "/v1/models/";
constexpr char kAdminPrefix[] = "/api/v1/";

net::HttpResponse json_body(std::string body) {
  net::HttpResponse response;
  response.body = std::move(body);
  return response;
}

api::ApiError unauthorized() {
  api::ApiError error = api::invalid_request("A valid API key is needed: send 'Authorization: Bearer KEY'.",
                                             {}, "invalid_api_key");
  error.status = 401;
  error.type = "authentication_error";
  return error;
}

}  // namespace

// One request on its way; cheap to copy.
struct HttpFront::Call {
  std::shared_ptr<const net::HttpRequest> request;
  std::shared_ptr<net::ResponseWriter> writer;
  std::shared_ptr<api::CompletionObserver> record;
};

struct HttpFront::Route {
  const char* path;
  const char* method;
  bool open;   // needs no key
  bool quiet;  // logged at debug
  bool work;   // refused while draining
  void (*run)(HttpFront&, const Call&);
};

const std::vector<HttpFront::Route>& HttpFront::routes() {
  static const std::vector<Route> table = {
      {"/v1/chat/completions", "POST", false, false, true,
       [](HttpFront& f, const Call& c) { f.complete(api::Endpoint::kChatCompletions, c); }},
      {"/v1/completions", "POST", false, false, true,
       [](HttpFront& f, const Call& c) { f.complete(api::Endpoint::kCompletions, c); }},
      {"/v1/models", "GET", false, false, false,
       [](HttpFront& f, const Call& c) { f.answer(c, models_route(f.models_)); }},
      {"/v1/models/{id}", "GET", false, false, false,
       [](HttpFront& f, const Call& c) {
         f.answer(c, model_route(c.request->path.substr(sizeof(kModelPrefix) - 1), f.models_));
       }},
      {"/tokenize", "POST", false, false, true,
       [](HttpFront& f, const Call& c) { f.work_on_text(c, tokenize_route); }},
      {"/detokenize", "POST", false, false, true,
       [](HttpFront& f, const Call& c) { f.work_on_text(c, detokenize_route); }},
      {"/health", "GET", true, true, false,
       [](HttpFront& f, const Call& c) { f.answer(c, json_body(R"({"status":"ok"})")); }},
      {"/ready", "GET", true, true, false, [](HttpFront& f, const Call& c) { f.ready(c); }},
      {"/metrics", "GET", false, true, false,
       [](HttpFront& f, const Call& c) {
         net::HttpResponse response = json_body(f.registry_.serialize());
         response.content_type = "text/plain; version=0.0.4; charset=utf-8";
         f.answer(c, std::move(response));
       }},
      {"/", "GET", false, true, false,
       [](HttpFront& f, const Call& c) {
         f.answer(c, json_body(R"({"service":"tessera","api":"/v1","health":"/health","ready":"/ready"})"));
       }},
  };
  return table;
}

const HttpFront::Route* HttpFront::find_route(const std::string& path) {
  const bool model = path.size() >= sizeof(kModelPrefix) && path.rfind(kModelPrefix, 0) == 0;
  for (const Route& route : routes())
    if (path == route.path || (model && route.path == std::string("/v1/models/{id}"))) return &route;
  return nullptr;
}

HttpFront::HttpFront(FrontOptions options, const api::ModelSet& models, obs::Metrics& metrics,
                     Readiness& readiness, Executor& work, const Clock& clock)
    : admin_(options.admin),
      keys_(options.api_keys),
      cors_(std::move(options.cors_origins)),
      models_(models),
      registry_(metrics),
      readiness_(readiness),
      work_(work),
      completions_(models, clock),
      metrics_(metrics, clock) {}

void HttpFront::handle(net::HttpRequest request, std::shared_ptr<net::ResponseWriter> writer) {
  const Route* route = find_route(request.path);
  Call call;
  call.record = metrics_.begin({request.id, request.method, route ? route->path : "other",
                                request.remote_address, route && route->quiet});
  if (auto preflight = cors_.preflight(request)) {
    writer->send(std::move(*preflight));
    call.record->on_end(204, {});
    return;
  }
  call.writer = cors_.wrap(request, std::move(writer));
  call.request = std::make_shared<const net::HttpRequest>(std::move(request));
  if (!(route && route->open) && !keys_.allows(call.request->header("authorization"))) {
    net::HttpResponse response = api::error_response(unauthorized());
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return answer(call, std::move(response));
  }
  if (!route && admin_ != nullptr && call.request->path.rfind(kAdminPrefix, 0) == 0) {
    admin_->handle(*call.request,
                   [this, call](net::HttpResponse response) { answer(call, std::move(response)); });
    return;
  }
  if (!route) {
    api::ApiError error = api::invalid_request("There is nothing at '" + call.request->path + "'.");
    error.status = 404;
    return answer(call, api::error_response(error));
  }
  const std::string& method = call.request->method;
  if (method != route->method && !(method == "HEAD" && route->method == std::string("GET"))) {
    api::ApiError error = api::invalid_request("'" + call.request->path + "' takes " + route->method + ".");
    error.status = 405;
    net::HttpResponse response = api::error_response(error);
    response.headers.emplace_back("Allow", route->method);
    return answer(call, std::move(response));
  }
  if (route->work && draining_)
    return answer(call, api::error_response(api::service_unavailable("The server is shutting down.")));
  route->run(*this, call);
}

void HttpFront::answer(const Call& call, net::HttpResponse response) const {
  const int status = response.status;
  call.writer->send(std::move(response));
  call.record->on_end(status, {});
}

void HttpFront::complete(api::Endpoint endpoint, const Call& call) const {
  completions_.handle(endpoint, *call.request, call.writer, call.record);
}

std::vector<std::string> HttpFront::cut_running() const {
  return completions_.cut_running(
      api::service_unavailable("The server is shutting down and could not wait for this answer to end."));
}

void HttpFront::work_on_text(const Call& call, TextRoute* run) {
  if (++text_pending_ > kMaxTextPending) {
    --text_pending_;
    return answer(call, api::error_response(api::error_from_status(
                            resource_exhausted("Too many texts are being tokenised; try again."))));
  }
  work_.post([this, call, run] {
    answer(call, run(call.request->body, models_));
    --text_pending_;
  });
}

void HttpFront::ready(const Call& call) const {
  if (draining_) return answer(call, api::error_response(api::service_unavailable("shutting down")));
  readiness_.check([this, call](const Status& status) {
    if (status.ok()) return answer(call, json_body(R"({"status":"ready"})"));
    api::ApiError error = api::error_from_status(status);
    error.code = "not_ready";
    answer(call, api::error_response(error));
  });
}

}  // namespace tessera::gateway
