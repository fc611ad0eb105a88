// What routes that take and give JSON have in common.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>

#include "api/errors.h"
#include "base/executor.h"
#include "base/json.h"
#include "gateway/routes.h"

namespace tessera::gateway {

using JsonAnswer = api::ApiResult<Json>;

// A route whose `run` may wait (for the database): it runs on `work`, which must not outlive what it touches.
Route json_route(std::string method, std::string path, Access access, Executor& work,
                 std::function<JsonAnswer(const Call&)> run);

// The request's body as a JSON object; an empty body is {}.
api::ApiResult<Json> json_body(const Call& call);

// A value, or its status as an answer.
template <typename T, typename To>
JsonAnswer answer_of(const Result<T>& result, To&& to_json) {
  if (!result.ok()) return api::error_from_status(result.status());
  return to_json(*result);
}

// "2026-12-01T08:30:00Z"; null for 0.
Json time_json(int64_t unix_ms);

}  // namespace tessera::gateway
