// Errors as OpenAI's clients read them: which HTTP status, type and code each of ours becomes.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "api/completer.h"
#include "net/http.h"

namespace tessera::api {

// A value, or what to answer instead.
template <typename T>
using ApiResult = std::variant<T, ApiError>;

// 400 invalid_request_error. `param` names the field at fault; empty when there is none.
ApiError invalid_request(std::string message, std::string param = {}, std::string code = {});
ApiError model_not_found(const std::string& name);
// 403: the scope of the caller's key does not hold it.
ApiError model_not_allowed(const std::string& model);
ApiError type_not_allowed(std::string_view type);
// 400, code context_length_exceeded: clients look for this code to shorten their prompt.
ApiError context_length_exceeded(int64_t prompt_tokens, int context_length, const std::string& param);
// 503 with Retry-After, for a server that is starting or stopping.
ApiError service_unavailable(std::string message);
// The table: Status code → HTTP status, type, code. `status` must not be ok.
ApiError error_from_status(const Status& status);

// {"error":{"message","type","param","code"}} on one line.
std::string error_body(const ApiError& error);
// The whole answer, with Retry-After where the error has one.
net::HttpResponse error_response(const ApiError& error);

}  // namespace tessera::api
