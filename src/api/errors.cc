#include "api/errors.h"

#include <nlohmann/json.hpp>

namespace tessera::api {
namespace {

struct Row {
  Code code;
  int http_status;
  const char* type;
  const char* error_code;  // empty = null
  int retry_after_s;       // 0 = none
};

constexpr Row kTable[] = {
    {Code::kInvalidArgument, 400, "invalid_request_error", "", 0},
    {Code::kUnsupported, 400, "invalid_request_error", "unsupported", 0},
    {Code::kPermissionDenied, 403, "permission_error", "", 0},
    {Code::kNotFound, 404, "invalid_request_error", "not_found", 0},
    {Code::kDeadlineExceeded, 503, "service_unavailable_error", "timeout", 5},
    {Code::kResourceExhausted, 429, "rate_limit_error", "rate_limit_exceeded", 1},
    {Code::kCancelled, 499, "cancelled_error", "cancelled", 0},
    {Code::kUnavailable, 503, "service_unavailable_error", "service_unavailable", 5},
    {Code::kCorrupt, 500, "server_error", "", 0},
    {Code::kIo, 500, "server_error", "", 0},
    {Code::kInternal, 500, "server_error", "", 0},
};

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
}

}  // namespace

ApiError invalid_request(std::string message, std::string param, std::string code) {
  ApiError error;
  error.status = 400;
  error.message = std::move(message);
  error.type = "invalid_request_error";
  error.param = std::move(param);
  error.code = std::move(code);
  return error;
}

ApiError model_not_found(const std::string& name) {
  ApiError error =
      invalid_request("The model '" + name + "' is not served here.", "model", "model_not_found");
  error.status = 404;
  return error;
}

ApiError model_not_allowed(const std::string& model) {
  ApiError error =
      error_from_status({Code::kPermissionDenied, "This key may not use the model '" + model + "'."});
  error.param = "model";
  error.code = "model_not_allowed";
  return error;
}

ApiError type_not_allowed(std::string_view type) {
  ApiError error = error_from_status(
      {Code::kPermissionDenied, "This key may not send requests of type '" + std::string(type) + "'."});
  error.code = "type_not_allowed";
  return error;
}

ApiError context_length_exceeded(int64_t prompt_tokens, int context_length, const std::string& param) {
  return invalid_request("This model's maximum context length is " + std::to_string(context_length) +
                             " tokens; the request needs " + std::to_string(prompt_tokens) + ".",
                         param, "context_length_exceeded");
}

ApiError service_unavailable(std::string message) {
  return error_from_status(unavailable(std::move(message)));
}

ApiError error_from_status(const Status& status) {
  ApiError error;
  error.message = status.message();
  for (const Row& row : kTable) {
    if (row.code != status.code()) continue;
    error.status = row.http_status;
    error.type = row.type;
    error.code = row.error_code;
    if (row.retry_after_s > 0) error.retry_after_s = row.retry_after_s;
  }
  return error;
}

std::string error_body(const ApiError& error) {
  return dump_json(OrderedJson{{"error",
                                {{"message", error.message},
                                 {"type", error.type},
                                 {"param", text_or_null(error.param)},
                                 {"code", text_or_null(error.code)}}}});
}

net::HttpResponse error_response(const ApiError& error) {
  net::HttpResponse response;
  response.status = error.status;
  response.content_type = "application/json";
  response.body = error_body(error);
  if (error.retry_after_s) response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after_s));
  return response;
}

}  // namespace tessera::api
