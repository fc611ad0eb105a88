#include "gateway/json_routes.h"

#include <ctime>
#include <nlohmann/json.hpp>

namespace tessera::gateway {

Route json_route(std::string method, std::string path, Access access, Executor& work,
                 std::function<JsonAnswer(const Call&)> run) {
  return {.method = std::move(method),
          .path = std::move(path),
          .access = access,
          .run = [&work, run = std::move(run)](const Call& call) {
            work.post([run, call] {
              JsonAnswer answer = run(call);
              if (const auto* error = std::get_if<api::ApiError>(&answer))
                return call.answer(api::error_response(*error));
              net::HttpResponse response;
              response.body = dump_json(std::get<Json>(answer));
              call.answer(std::move(response));
            });
          }};
}

api::ApiResult<Json> json_body(const Call& call) {
  const std::string& text = call.request->body;
  Result<Json> body = parse_json(text.empty() ? "{}" : text);
  if (!body.ok()) return api::error_from_status(body.status());
  if (!body->is_object()) return api::invalid_request("The body must be a JSON object.");
  return std::move(*body);
}

Json time_json(int64_t unix_ms) {
  if (unix_ms == 0) return nullptr;
  const std::time_t seconds = unix_ms / 1000;
  std::tm parts{};
  char text[32];
  if (gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
    return nullptr;
  return text;
}

}  // namespace tessera::gateway
