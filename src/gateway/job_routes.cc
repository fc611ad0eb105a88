#include "gateway/job_routes.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "api/field_reader.h"
#include "base/secrets.h"
#include "gateway/job_json.h"
#include "gateway/json_routes.h"
#include "net/sse.h"
#include "net/url.h"

namespace tessera::gateway {
namespace {

using control::Job;
using control::JobRequest;

constexpr int64_t kMostPriority = 1000;
constexpr int64_t kSyncPriority = 10;  // somebody waits
constexpr int64_t kMostTimeout_s = 24 * 3600;
constexpr int64_t kMostSyncWait_s = 3600;
constexpr int64_t kMostRetries = 20;
constexpr int64_t kDefaultRetries = 2;
constexpr size_t kMostNameBytes = 256;
constexpr int kMostListed = 500;
constexpr size_t kSecretBytes = 32;

net::HttpResponse json_response(const Json& json) {
  net::HttpResponse response;
  response.body = dump_json(json);
  return response;
}

void refuse(const Call& call, const Status& status) {
  call.answer(api::error_response(api::error_from_status(status)));
}

// A short text of the client's that goes into the database: no control bytes, which it may not hold.
std::string name_field(api::FieldReader& fields, const char* name) {
  std::string text = fields.text(name);
  const bool plain =
      std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 32; });
  if (text.size() > kMostNameBytes || !plain)
    fields.fail(name, "'" + std::string(name) + "' must be at most " + std::to_string(kMostNameBytes) +
                          " bytes without control characters.");
  return text;
}

api::ApiResult<JobRequest> read_request(const Json& body, const Call& call, int64_t more_priority) {
  api::FieldReader fields(body);
  JobRequest job;
  job.tenant = call.caller->tenant;
  job.key = call.caller->key;
  job.type = name_field(fields, "type");
  if (job.type.empty()) fields.fail("type", "'type' must say what kind of job it is: \"llm\".");
  if (const Json* params = fields.find("params"); params && params->is_object())
    job.params = dump_json(*params);
  else
    fields.fail("params", "'params' must be an object: what the job is asked.");
  job.priority = fields.integer("priority", 0, -kMostPriority, kMostPriority) + more_priority;
  job.region = name_field(fields, "region");
  job.cross_region = fields.boolean("allow_cross_region", true);
  job.timeout_ms =
      std::llround(1000 * fields.number("timeout_seconds", 300, 1, static_cast<double>(kMostTimeout_s)));
  job.max_attempts = 1 + fields.integer("max_retries", kDefaultRetries, 0, kMostRetries);
  job.idempotency_key = name_field(fields, "idempotency_key");
  if (const std::string* header = call.request->header("idempotency-key");
      header && job.idempotency_key.empty())
    job.idempotency_key = header->substr(0, kMostNameBytes);
  if (const Json* webhook = fields.find("webhook")) {
    if (webhook->is_object()) {
      api::FieldReader inner(*webhook);
      job.webhook_url = inner.text("url");
      job.webhook_secret = name_field(inner, "secret");
      if (inner.error()) return *inner.error();
    } else {
      fields.fail("webhook", "'webhook' must be an object with 'url'.");
    }
  }
  if (fields.error()) return *fields.error();
  return job;
}

// Of which tenant this caller may see jobs; empty: of all.
std::string sees(const Call& call) {
  return call.caller->role >= api::Role::kViewer ? std::string() : call.caller->tenant;
}
std::string may_change(const Call& call) {
  return call.caller->role >= api::Role::kOperator ? std::string() : call.caller->tenant;
}

std::optional<int64_t> query_integer(const Call& call, const char* name) {
  const auto text = net::query_value(call.request->query, name);
  if (!text) return std::nullopt;
  int64_t value = -1;
  const auto [end, problem] = std::from_chars(text->data(), text->data() + text->size(), value);
  return problem == std::errc() && end == text->data() + text->size() ? value : -1;
}

bool wants_events(const Call& call) {
  const std::string* accept = call.request->header("accept");
  return accept && accept->find("text/event-stream") != std::string::npos;
}

net::HttpResponse wait_is_over(const Job& job) {
  api::ApiError error =
      api::invalid_request("The job did not end within the timeout; it goes on.", {}, "timeout");
  error.status = 408;
  error.type = "timeout_error";
  net::HttpResponse response = api::error_response(error);
  if (Result<Json> body = parse_json(response.body); body.ok()) {
    (*body)["job_id"] = job.id;
    response.body = dump_json(*body);
  }
  return response;
}

Json with_standing(const Job& job, const JobStanding& standing) {
  Json json = job_json(job);
  const bool waits = job.state == control::JobState::kQueued;
  json["queue_position"] = waits && standing.position ? Json(*standing.position + 1) : Json();
  json["estimated_wait_seconds"] = waits && standing.wait ? Json(*standing.wait) : Json();
  return json;
}

// What a waiting client has been told of. Its calls come from the service's thread.
struct Waiting {
  Call call;
  bool events = false;
  std::atomic<bool> gone{false};
  Job last;

  bool tell(const std::optional<Job>& job) {
    if (gone) return false;
    if (job) last = *job;
    const bool over = !job || job->ended();
    if (over && gone.exchange(true)) return false;
    if (!events) {
      if (!job) call.answer(wait_is_over(last));
      if (job && over) call.answer(json_response(job_json(*job)));
      return !over;
    }
    call.writer->write(net::sse_event(job ? dump_json(job_json(*job)) : wait_is_over(last).body));
    if (!over) return true;
    call.writer->end_stream();
    call.record->on_end(job ? 200 : 408, {});
    return false;
  }
};

}  // namespace

std::vector<Route> JobRoutes::routes() {
  const auto route = [](std::string method, std::string path, auto run, bool work = false) {
    return Route{.method = std::move(method),
                 .path = std::move(path),
                 .access = Access::kClient,
                 .run = std::move(run),
                 .work = work};
  };
  return {route(
              "POST", "/api/v1/jobs", [this](const Call& call) { create_and_answer(call); }, true),
          route(
              "POST", "/api/v1/jobs/sync", [this](const Call& call) { create_and_wait(call); }, true),
          route("GET", "/api/v1/jobs", [this](const Call& call) { list(call); }),
          route("GET", "/api/v1/jobs/stats/queue", [this](const Call& call) { stats(call); }),
          route("GET", "/api/v1/jobs/{id}", [this](const Call& call) { show(call); }),
          route("DELETE", "/api/v1/jobs/{id}", [this](const Call& call) { cancel(call); })};
}

void JobRoutes::create(const Call& call, int64_t more_priority, const Created& created) {
  auto body = json_body(call);
  if (auto* error = std::get_if<api::ApiError>(&body)) return call.answer(api::error_response(*error));
  auto request = read_request(std::get<0>(body), call, more_priority);
  if (auto* error = std::get_if<api::ApiError>(&request)) return call.answer(api::error_response(*error));
  control::Jobs::NewJob job;
  job.request = std::get<0>(std::move(request));
  if (auto error = service_.check(job.request, *call.caller)) return call.answer(api::error_response(*error));
  Result<std::string> id = JobService::draw_id();
  if (!id.ok()) return refuse(call, id.status());
  job.id = std::move(*id);
  if (!job.request.webhook_url.empty() && job.request.webhook_secret.empty()) {
    Result<std::string> secret = random_text(kSecretBytes);
    if (!secret.ok()) return refuse(call, secret.status());
    job.request.webhook_secret = std::move(*secret);
  }
  service_.create(job, [call, created, id = job.id](const Result<Job>& made) {
    if (made.ok()) return created(*made, made->id == id);
    api::ApiError error = api::error_from_status(made.status());
    if (made.status().code() == Code::kInvalidArgument) {
      error.status = 409;
      error.code = "idempotency_conflict";
    }
    call.answer(api::error_response(error));
  });
}

void JobRoutes::create_and_answer(const Call& call) {
  create(call, 0, [this, call](const Job& job, bool is_new) {
    answer_with_standing(call, job, is_new ? job.request.webhook_secret : std::string());
  });
}

void JobRoutes::create_and_wait(const Call& call) {
  const int64_t seconds = query_integer(call, "timeout").value_or(60);
  if (seconds < 1 || seconds > kMostSyncWait_s)
    return call.answer(api::error_response(api::invalid_request(
        "'timeout' must be 1 to " + std::to_string(kMostSyncWait_s) + " seconds.", "timeout")));
  const bool wait_for_worker =
      net::query_value(call.request->query, "wait_for_worker").value_or("true") != "false";
  const auto go = [this, call, seconds] {
    create(call, kSyncPriority,
           [this, call, seconds](const Job& job, bool) { wait(call, job, std::chrono::seconds(seconds)); });
  };
  if (wait_for_worker) return go();
  workers_([call, go](int workers) {
    if (workers > 0) return go();
    api::ApiError error = api::service_unavailable("No worker is there to run the job.");
    error.code = "no_workers_available";
    call.answer(api::error_response(error));
  });
}

void JobRoutes::wait(const Call& call, const Job& job, std::chrono::milliseconds limit) {
  auto waiting = std::make_shared<Waiting>();
  waiting->call = call;
  waiting->events = wants_events(call);
  waiting->last = job;
  if (waiting->events)
    call.writer->begin_stream(200, "text/event-stream",
                              {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}});
  // The job goes on without its client: it has an id.
  call.writer->on_client_gone([waiting] {
    if (!waiting->gone.exchange(true)) waiting->call.record->on_end(499, {});
  });
  service_.watch(job.id, limit, [waiting](const std::optional<Job>& now) { return waiting->tell(now); });
}

void JobRoutes::answer_with_standing(const Call& call, const Job& job, const std::string& secret) {
  service_.standing(job, [call, job, secret](const JobStanding& standing) {
    Json json = with_standing(job, standing);
    if (!secret.empty()) json["webhook_secret"] = secret;
    call.answer(json_response(json));
  });
}

void JobRoutes::show(const Call& call) {
  service_.find(call.parameters[0], sees(call), [this, call](const Result<Job>& job) {
    if (!job.ok()) return refuse(call, job.status());
    answer_with_standing(call, *job);
  });
}

void JobRoutes::list(const Call& call) {
  control::JobFilter filter;
  filter.tenant = sees(call);
  if (const auto state = net::query_value(call.request->query, "status")) {
    filter.state = control::parse_job_state(*state);
    if (!filter.state)
      return call.answer(
          api::error_response(api::invalid_request("'status' is no state of a job.", "status")));
  }
  filter.before = query_integer(call, "before").value_or(0);
  const int64_t limit = query_integer(call, "limit").value_or(50);
  if (limit < 1 || limit > kMostListed || filter.before < 0)
    return call.answer(api::error_response(
        api::invalid_request("'limit' must be 1 to " + std::to_string(kMostListed) + ".", "limit")));
  filter.limit = static_cast<int>(limit);
  service_.list(filter, [call, limit](const Result<std::vector<Job>>& jobs) {
    if (!jobs.ok()) return refuse(call, jobs.status());
    Json json{{"jobs", Json::array()}, {"next", nullptr}};
    for (const Job& job : *jobs) json["jobs"].push_back(job_json(job));
    if (static_cast<int64_t>(jobs->size()) == limit) json["next"] = jobs->back().number;
    call.answer(json_response(json));
  });
}

void JobRoutes::cancel(const Call& call) {
  service_.cancel(call.parameters[0], may_change(call), [call](const Result<Job>& job) {
    if (!job.ok()) return refuse(call, job.status());
    if (job->state == control::JobState::kCancelled) return call.answer(json_response(job_json(*job)));
    api::ApiError error = api::invalid_request(
        "The job has ended: it " + std::string(control::job_state_name(job->state)) + ".", {}, "job_ended");
    error.status = 409;
    call.answer(api::error_response(error));
  });
}

void JobRoutes::stats(const Call& call) {
  const std::string region = net::query_value(call.request->query, "region").value_or("");
  workers_([this, call, region](int workers) {
    service_.stats(region, [this, call, workers](const Result<control::QueueStats>& stats) {
      if (!stats.ok()) return refuse(call, stats.status());
      Json types = Json::object();
      for (const auto& [type, count] : stats->by_type) types[type] = count;
      const auto wait = service_.wait_of(*stats, stats->queued);
      call.answer(json_response(
          {{"total_queued", stats->queued},
           {"running", stats->running},
           {"by_type", std::move(types)},
           {"available_workers", workers},
           {"mean_service_seconds", stats->service_ms > 0 ? Json(stats->service_ms / 1e3) : Json()},
           // −1: nobody is there; null: nothing was measured yet.
           {"estimated_wait_seconds", workers == 0 ? Json(-1)
                                      : wait       ? Json(*wait)
                                                   : Json()}}));
    });
  });
}

}  // namespace tessera::gateway
