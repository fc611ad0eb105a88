#include "gateway/cluster_routes.h"

#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "control/plan_text.h"
#include "wire/relay.h"

namespace tessera::gateway {
namespace {

constexpr int kFailoversShown = 20;
constexpr size_t kSessionsShown = 1000;  // of each model
constexpr int kTracedTokens = 16;

net::HttpResponse json_response(const Json& json) {
  net::HttpResponse response;
  response.body = dump_json(json);
  return response;
}

net::HttpResponse error(const Status& status) {
  return api::error_response(api::error_from_status(status));
}

std::string_view state_name(InstanceState state) {
  switch (state) {
    case InstanceState::kFetching:
      return "fetching";
    case InstanceState::kLoading:
      return "loading";
    case InstanceState::kReady:
      return "ready";
    case InstanceState::kFailed:
      return "failed";
    case InstanceState::kUnloaded:
      return "unloaded";
  }
  return "unknown";
}

Json instance_json(const control::InstanceView& view) {
  const InstanceReport& r = view.report;
  return {{"id", r.id},
          {"model", r.model},
          {"blocks", {r.blocks.first, r.blocks.last}},
          {"state", state_name(r.state)},
          {"retiring", view.retiring},
          {"numerics", r.numerics},
          {"sessions", r.running},
          {"kv_tokens", r.kv_tokens},
          {"kv_tokens_free", r.kv_tokens_free},
          {"tokens_replayed", r.tokens_replayed},
          {"tokens_recomputed", r.tokens_recomputed},
          {"decode_step_s", r.decode_step_s},
          {"prefill_token_s", r.prefill_token_s},
          {"bytes_fetched", r.bytes_fetched},
          {"bytes_total", r.bytes_total}};
}

std::string_view engine_state_name(EngineState state) {
  return state == EngineState::kReady ? "ready" : state == EngineState::kStarting ? "starting" : "down";
}

Json engine_json(const EngineReport& report) {
  Json models = Json::array(), features = Json::array();
  for (const EngineModel& model : report.models)
    models.push_back({{"name", model.name}, {"context_length", model.context_length}});
  for (size_t bit = 0; bit < engine_feature::kNames.size(); ++bit)
    if ((report.features >> bit & 1u) != 0) features.push_back(engine_feature::kNames[bit]);
  const auto known = [](auto value) { return value < 0 ? Json() : Json(value); };
  return {{"engine", report.engine},
          {"version", report.version},
          {"state", engine_state_name(report.state)},
          {"error", report.error},
          {"whole_model", true},   // no block ranges
          {"token_exact", false},  // no invariant I1
          {"models", std::move(models)},
          {"features", std::move(features)},
          {"held", report.held},
          {"running", known(report.running)},
          {"waiting", known(report.waiting)},
          {"kv_use", known(report.kv_use)},
          {"answered", report.answered},
          {"failed", report.failed},
          {"miscounted", report.miscounted},
          {"restarts", report.restarts}};
}

Json worker_json(const control::WorkerView& worker) {
  Json json{{"name", worker.name},
            {"state", worker.state},
            {"address", worker.address},
            {"relay", wire::is_relay_address(worker.address)},
            {"version", worker.version},
            {"device", worker.capabilities.device},
            {"memory_bytes", worker.capabilities.memory_bytes},
            {"decode_bytes_per_s", worker.capabilities.decode_bytes_per_s},
            {"prefill_ops_per_s", worker.capabilities.prefill_ops_per_s},
            {"lost", worker.lost_count},
            {"lost_because", worker.lost_because},
            {"instances", Json::array()},
            {"links", Json::array()}};
  for (const control::InstanceView& instance : worker.instances)
    json["instances"].push_back(instance_json(instance));
  if (worker.engine) json["engine"] = engine_json(*worker.engine);
  for (const LinkReport& link : worker.links)
    json["links"].push_back(
        {{"peer", link.peer}, {"rtt_ms", link.rtt_s * 1e3}, {"bytes_per_s", link.bytes_per_s}});
  return json;
}

Json model_json(const control::ModelView& model) {
  return {{"name", model.name},
          {"blocks", model.num_blocks},
          {"covered", model.uncovered < 0},
          {"uncovered_from", model.uncovered < 0 ? Json() : Json(model.uncovered)},
          {"reason", model.reason},
          {"tokens_per_s", model.tokens_per_s},
          {"sessions",
           {{"running", model.sessions.running},
            {"waiting", model.sessions.waiting},
            {"without_route", model.sessions.broken},
            {"reopened", model.sessions.reopened},
            {"failovers", model.sessions.failovers}}}};
}

std::string session_text(SessionId id) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, id);
  return text;
}

bool parse_session(const std::string& text, SessionId& id) {
  const char* end = text.data() + text.size();
  const auto [used, problem] = std::from_chars(text.data(), end, id, 16);
  return !text.empty() && used == end && problem == std::errc();
}

Json trace_json(const cluster::SessionTrace& trace) {
  Json json{{"session", session_text(trace.session)}, {"tokens", Json::array()}};
  for (const cluster::TracedStep& step : trace.steps) {
    Json hops = Json::array();
    for (const StepTrace& t : step.hops) {
      const Hop& hop = (*trace.route)[static_cast<size_t>(t.hop)];
      hops.push_back({{"worker", hop.worker},
                      {"blocks", {hop.blocks.first, hop.blocks.last}},
                      {"rows", t.rows},
                      {"batch_rows", t.batch_rows},
                      {"wake_us", t.wake_us},
                      {"queue_us", t.queue_us},
                      {"compute_us", t.compute_us},
                      {"send_us", t.send_us}});
    }
    json["tokens"].push_back({{"position", step.position},
                              {"cycle_us", step.cycle_us},
                              {"links_us", step.links_us()},
                              {"hops", std::move(hops)}});
  }
  return json;
}

}  // namespace

Json cluster_json(const control::ClusterView& view, const std::vector<control::FailoverRecord>& failovers) {
  Json json{{"workers", Json::array()}, {"models", Json::array()}, {"failovers", Json::array()}};
  for (const control::WorkerView& worker : view.workers) json["workers"].push_back(worker_json(worker));
  for (const control::ModelView& model : view.models) json["models"].push_back(model_json(model));
  for (const control::FailoverRecord& f : failovers)
    json["failovers"].push_back({{"unix_ms", f.unix_ms},
                                 {"worker", f.worker},
                                 {"model", f.model},
                                 {"cause", f.cause},
                                 {"stall_ms", f.stall_ms}});
  return json;
}

std::vector<Route> ClusterRoutes::routes() {
  const auto done_of = [](const Call& call) {
    return [call](net::HttpResponse response) { call.answer(std::move(response)); };
  };
  const auto get = [done_of](std::string path, auto run) {
    return Route{.method = "GET",
                 .path = std::move(path),
                 .access = Access::kViewer,
                 .run = [done_of, run](const Call& call) { run(done_of(call)); }};
  };
  return {get("/api/v1/cluster", [this](const Done& done) { cluster(done); }),
          get("/api/v1/cluster/plan", [this](const Done& done) { plan(done); }),
          get("/api/v1/cluster/sessions", [this](const Done& done) { list_sessions(done); }),
          get("/api/v1/models", [this](const Done& done) { list_models(done); }),
          change("/api/v1/cluster/trace", &ClusterRoutes::trace),
          change("/api/v1/cluster/drain", &ClusterRoutes::drain),
          change("/api/v1/cluster/tokens", &ClusterRoutes::token),
          change("/api/v1/models", &ClusterRoutes::load_model),
          {.method = "DELETE",
           .path = "/api/v1/models/{name...}",
           .access = Access::kOperator,
           .run = [this, done_of](const Call& call) {
             change_models(call.parameters[0], false, done_of(call));
           }}};
}

Route ClusterRoutes::change(std::string path, Change run) {
  return {.method = "POST",
          .path = std::move(path),
          .access = Access::kOperator,
          .run = [this, run](const Call& call) {
            const std::string& text = call.request->body;
            Result<Json> body = parse_json(text.empty() ? "{}" : text);
            if (!body.ok() || !body->is_object())
              return call.answer(error(invalid_argument("the body must be a JSON object")));
            (this->*run)(*body, [call](net::HttpResponse response) { call.answer(std::move(response)); });
          }};
}

void ClusterRoutes::load_model(const Json& body, const Done& done) {
  const auto name = body.find("model");
  if (name == body.end() || !name->is_string() || name->get_ref<const std::string&>().empty())
    return done(error(invalid_argument("'model' must say which model")));
  change_models(name->get<std::string>(), true, done);
}

void ClusterRoutes::cluster(const Done& done) {
  gateway_.coordinator().view([this, done](const control::ClusterView& view) {
    // The database may wait for the disk: not on the sessions' thread.
    work_.post([this, done, view] {
      auto failovers = gateway_.identities().failovers(kFailoversShown);
      done(json_response(
          cluster_json(view, failovers.ok() ? *failovers : std::vector<control::FailoverRecord>())));
    });
  });
}

void ClusterRoutes::plan(const Done& done) {
  gateway_.coordinator().view([this, done](const control::ClusterView& view) {
    // As it would be decided now; not on the sessions' thread.
    work_.post([done, snapshot = view.snapshot] {
      const control::Plan plan = control::place(snapshot);
      Json json = control::plan_json(snapshot, plan);
      json["table"] = control::plan_table(snapshot, plan);
      done(json_response(json));
    });
  });
}

void ClusterRoutes::list_sessions(const Done& done) {
  gateway_.list_sessions(kSessionsShown, [done](const ClusterGateway::Sessions& sessions) {
    Json json{{"sessions", Json::array()}};
    for (const auto& [model, views] : sessions)
      for (const cluster::SessionView& view : views)
        json["sessions"].push_back({{"session", session_text(view.id)},
                                    {"model", model},
                                    {"state", view.state},
                                    {"prompt_tokens", view.prompt_tokens},
                                    {"output_tokens", view.output_tokens},
                                    {"route", view.route}});
    done(json_response(json));
  });
}

void ClusterRoutes::trace(const Json& body, const Done& done) {
  const auto session = body.find("session");
  SessionId id = 0;
  if (session == body.end() || !session->is_string() || !parse_session(session->get<std::string>(), id))
    return done(error(invalid_argument("'session' must be an id of /api/v1/cluster/sessions")));
  const auto tokens = body.find("tokens");
  if (tokens != body.end() && !tokens->is_number_integer())
    return done(error(invalid_argument("'tokens' must say how many tokens to trace")));
  constexpr int64_t kMost = cluster::SessionManager::kMostTracedSteps;
  const int64_t steps = tokens == body.end() ? kTracedTokens : tokens->get<int64_t>();
  if (steps < 1 || steps > kMost)
    return done(error(invalid_argument("'tokens' must be 1 to " + std::to_string(kMost))));
  gateway_.trace(id, static_cast<int>(steps), [done](const Result<cluster::SessionTrace>& trace) {
    done(trace.ok() ? json_response(trace_json(*trace)) : error(trace.status()));
  });
}

void ClusterRoutes::drain(const Json& body, const Done& done) {
  const auto worker = body.find("worker");
  if (worker == body.end() || !worker->is_string())
    return done(error(invalid_argument("'worker' must say which worker")));
  gateway_.coordinator().drain(worker->get<std::string>(), [done](const Status& status) {
    done(status.ok() ? json_response({{"status", "draining"}}) : error(status));
  });
}

void ClusterRoutes::token(const Json& body, const Done& done) {
  const auto rotate = body.find("rotate");
  const bool all_new = rotate != body.end() && rotate->is_boolean() && rotate->get<bool>();
  work_.post([this, all_new, done] {
    auto url = gateway_.make_join_url(all_new);
    done(url.ok() ? json_response({{"join", *url}}) : error(url.status()));
  });
}

void ClusterRoutes::list_models(const Done& done) {
  gateway_.coordinator().view([done](const control::ClusterView& view) {
    Json json{{"models", Json::array()}};
    for (const control::ModelView& model : view.models) json["models"].push_back(model_json(model));
    done(json_response(json));
  });
}

void ClusterRoutes::change_models(const std::string& name, bool load, const Done& done) {
  work_.post([this, name, load, done] {
    const Status status = load ? models_.load(name) : models_.unload(name);
    done(status.ok() ? json_response({{"model", name}, {"status", load ? "loading" : "unloaded"}})
                     : error(status));
  });
}

}  // namespace tessera::gateway
