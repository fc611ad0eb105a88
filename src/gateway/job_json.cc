#include "gateway/job_json.h"

#include "gateway/json_routes.h"

namespace tessera::gateway {
namespace {

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

}  // namespace

Json job_json(const control::Job& job) {
  Json result;
  if (!job.result.empty())
    if (Result<Json> parsed = parse_json(job.result); parsed.ok()) result = std::move(*parsed);
  return {{"job_id", job.id},
          {"type", job.request.type},
          {"model", text_or_null(job.request.model)},
          {"status", control::job_state_name(job.state)},
          {"result", std::move(result)},
          {"error", text_or_null(job.error)},
          {"priority", job.request.priority},
          {"region", text_or_null(job.request.region)},
          {"allow_cross_region", job.request.cross_region},
          {"ran_in", text_or_null(job.ran_in)},
          {"attempts", job.attempts},
          {"max_attempts", job.request.max_attempts},
          {"timeout_seconds", static_cast<double>(job.request.timeout_ms) / 1e3},
          {"idempotency_key", text_or_null(job.request.idempotency_key)},
          {"enterprise_id", job.request.tenant},
          {"created_at", time_json(job.created_ms)},
          {"started_at", time_json(job.started_ms)},
          {"completed_at", time_json(job.ended_ms)}};
}

}  // namespace tessera::gateway
