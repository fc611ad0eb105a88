// status, plan, drain, token: what a person asks a running gateway.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "app/commands.h"
#include "app/gateway_client.h"
#include "app/plan_ahead.h"
#include "base/json.h"

namespace tessera::app {
namespace {

std::string blocks_of(const Json& instance) {
  return std::to_string(instance["blocks"][0].get<int>()) + ":" +
         std::to_string(instance["blocks"][1].get<int>());
}

// "vllm 0.11.0: org/model, whole, not token-exact; 3 running, 0 waiting, KV 25 %"
std::string engine_of(const Json& engine) {
  std::string text = text_at(engine, "engine");
  if (const std::string version = text_at(engine, "version"); !version.empty()) text += " " + version;
  std::string models;
  for (const Json& model : engine["models"]) models += (models.empty() ? "" : ", ") + text_at(model, "name");
  text += ": " + (models.empty() ? "no model" : models) + ", whole, not token-exact";
  if (const std::string state = text_at(engine, "state"); state != "ready")
    return text + "; " + state + (text_at(engine, "error").empty() ? "" : ": " + text_at(engine, "error"));
  const Json& running = engine["running"].is_null() ? engine["held"] : engine["running"];
  text += "; " + std::to_string(running.get<int>()) + " running";
  if (!engine["waiting"].is_null()) text += ", " + std::to_string(engine["waiting"].get<int>()) + " waiting";
  if (!engine["kv_use"].is_null())
    text += ", KV " + std::to_string(static_cast<int>(100 * engine["kv_use"].get<double>() + 0.5)) + " %";
  return text;
}

void print_status(const Json& cluster) {
  for (const Json& model : cluster["models"]) {
    const Json& sessions = model["sessions"];
    std::printf(
        "%s  %d blocks, %s; %lld running, %lld waiting, %.1f tok/s, %lld failovers\n",
        text_at(model, "name").c_str(), model["blocks"].get<int>(),
        model["covered"].get<bool>()
            ? "covered"
            : ("no worker for blocks from " + std::to_string(model["uncovered_from"].get<int>())).c_str(),
        static_cast<long long>(sessions["running"].get<int64_t>()),
        static_cast<long long>(sessions["waiting"].get<int64_t>()), model["tokens_per_s"].get<double>(),
        static_cast<long long>(sessions["failovers"].get<int64_t>()));
    if (const std::string reason = text_at(model, "reason"); !reason.empty())
      std::printf("  %s\n", reason.c_str());
  }
  std::printf("\n%-20s %-9s %-7s %-10s %-22s %s\n", "worker", "state", "via", "memory", "hosts", "links");
  for (const Json& worker : cluster["workers"]) {
    std::string hosts, links;
    for (const Json& instance : worker["instances"]) {
      hosts += (hosts.empty() ? "" : " ") + blocks_of(instance);
      const std::string state = text_at(instance, "state");
      if (state == "fetching" && instance["bytes_total"].get<uint64_t>() > 0)
        hosts += "(" +
                 std::to_string(100 * instance["bytes_fetched"].get<uint64_t>() /
                                instance["bytes_total"].get<uint64_t>()) +
                 "%)";
      else if (state != "ready")
        hosts += "(" + state + ")";
    }
    if (worker.contains("engine")) hosts = engine_of(worker["engine"]);
    for (const Json& link : worker["links"]) {
      char text[128];
      std::snprintf(text, sizeof text, "%s%s %.1f ms", links.empty() ? "" : ", ",
                    text_at(link, "peer").c_str(), link["rtt_ms"].get<double>());
      links += text;
    }
    std::printf(
        "%-20s %-9s %-7s %-10s %-22s %s\n", text_at(worker, "name").c_str(), text_at(worker, "state").c_str(),
        worker.contains("engine")     ? "gateway"
        : worker["relay"].get<bool>() ? "relay"
                                      : "direct",
        worker.contains("engine") ? "-" : format_bytes(worker["memory_bytes"].get<uint64_t>()).c_str(),
        hosts.c_str(), links.c_str());
    if (const std::string why = text_at(worker, "lost_because");
        text_at(worker, "state") == "lost" && !why.empty())
      std::printf("%20s %s\n", "", why.c_str());
  }
  if (!cluster["failovers"].empty()) {
    std::printf("\nlast failovers\n");
    for (const Json& f : cluster["failovers"])
      std::printf("  %s: %s, stalled %.0f ms\n", text_at(f, "worker").c_str(), text_at(f, "cause").c_str(),
                  f["stall_ms"].get<double>());
  }
}

double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Medians over the traced tokens, in milliseconds.
void print_trace(const Json& trace) {
  const Json& tokens = trace["tokens"];
  const auto median = [&](auto&& value) {
    std::vector<double> values;
    for (const Json& token : tokens) values.push_back(value(token) / 1e3);
    return median_of(std::move(values));
  };
  std::printf("session %s, medians of %zu tokens, ms\n", text_at(trace, "session").c_str(), tokens.size());
  std::printf("%-24s %-8s %6s %8s %8s %8s %8s\n", "hop", "blocks", "batch", "wake-up", "queue", "compute",
              "send");
  const Json& hops = tokens[0]["hops"];
  for (size_t h = 0; h < hops.size(); ++h) {
    const auto of = [&](const char* field) {
      return median([&](const Json& token) { return token["hops"][h][field].get<double>(); });
    };
    std::printf("%-24s %-8s %6.0f %8.2f %8.2f %8.2f %8.2f\n", text_at(hops[h], "worker").c_str(),
                blocks_of(hops[h]).c_str(), 1e3 * of("batch_rows"), of("wake_us"), of("queue_us"),
                of("compute_us"), of("send_us"));
  }
  const double links = median([](const Json& token) { return token["links_us"].get<double>(); });
  const double cycle = median([](const Json& token) { return token["cycle_us"].get<double>(); });
  std::printf("links, all together      %*.2f\na token, from the one before %*.2f\n", 40, links, 36, cycle);
}

struct StatusOptions : ClusterOptions {
  bool watch = false;
  bool sessions = false;
  std::string trace;
  template <typename V>
  void fields(V& v) {
    v("watch", watch, "draw it again every second");
    v("sessions", sessions, "the sessions that run and wait, with their hops");
    v("trace", trace, "where the time of this session's next tokens goes, hop by hop (an id of --sessions)");
    ClusterOptions::fields(v);
  }
};

int trace_session(const StatusOptions& options) {
  auto trace = ask_gateway(options, "POST", "/api/v1/cluster/trace", Json{{"session", options.trace}});
  if (!trace.ok()) return report(trace.status());
  if (options.json)
    std::printf("%s\n", dump_json(*trace).c_str());
  else
    print_trace(*trace);
  return kDone;
}

int list_sessions(const StatusOptions& options) {
  auto answer = ask_gateway(options, "GET", "/api/v1/cluster/sessions");
  if (!answer.ok()) return report(answer.status());
  if (options.json) return print_json(*answer);
  std::printf("%-16s  %-24s %-8s %7s %7s  %s\n", "session", "model", "state", "prompt", "output", "route");
  for (const Json& session : (*answer)["sessions"]) {
    std::string route;
    for (const Json& hop : session["route"])
      route += (route.empty() ? "" : " → ") + hop.get_ref<const std::string&>();
    std::printf("%-16s  %-24s %-8s %7d %7d  %s\n", text_at(session, "session").c_str(),
                text_at(session, "model").c_str(), text_at(session, "state").c_str(),
                session["prompt_tokens"].get<int>(), session["output_tokens"].get<int>(), route.c_str());
  }
  return kDone;
}

int status(const StatusOptions& options) {
  if (!options.trace.empty()) return trace_session(options);
  if (options.sessions) return list_sessions(options);
  for (;;) {
    auto cluster = ask_gateway(options, "GET", "/api/v1/cluster");
    if (options.watch && isatty(STDOUT_FILENO) != 0) std::printf("\033[H\033[2J");
    if (!cluster.ok()) {
      report(cluster.status());
      if (!options.watch) return kFailed;
    } else if (options.json) {
      std::printf("%s\n", dump_json(*cluster).c_str());
    } else {
      print_status(*cluster);
    }
    std::fflush(stdout);
    if (!options.watch) return kDone;
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
}

struct PlanOptions : ClusterOptions {
  PlanAheadOptions ahead;
  template <typename V>
  void fields(V& v) {
    ClusterOptions::fields(v);
    v("worker", ahead.workers,
      "plan for machines that are not there yet instead of asking a gateway: NAME:MEMORY[:READ[:COMPUTE]], "
      "in "
      "GB/s and TFLOP/s; repeat it");
    v("model", ahead.model, "the model of --worker");
    v("rtt", ahead.rtt_ms, "milliseconds of a round trip between the machines of --worker");
    v("mbit", ahead.mbit, "Mbit/s between them");
    v("context", ahead.context, "tokens that each of them must have room for");
  }
};

int print_plan_ahead(const PlanOptions& options) {
  auto ahead = plan_ahead(options.ahead);
  if (!ahead.ok()) return report(ahead.status());
  if (options.json)
    std::printf("%s\n", dump_json(plan_ahead_json(*ahead)).c_str());
  else
    std::printf("%s", plan_ahead_text(*ahead).c_str());
  return kDone;
}

int plan(const PlanOptions& options) {
  if (!options.ahead.workers.empty()) return print_plan_ahead(options);
  if (!options.ahead.model.empty())
    return report(invalid_argument("--model plans for the machines that --worker names; there is none"));
  auto answer = ask_gateway(options, "GET", "/api/v1/cluster/plan");
  if (!answer.ok()) return report(answer.status());
  if (!options.json) {
    std::printf("%s", text_at(*answer, "table").c_str());
    return kDone;
  }
  answer->erase("table");
  std::printf("%s\n", dump_json(*answer).c_str());
  return kDone;
}

struct DrainOptions : ClusterOptions {
  std::string worker;
  bool no_wait = false;
  template <typename V>
  void fields(V& v) {
    v("=WORKER", worker, "its name in `tessera status`");
    v("no-wait", no_wait, "return at once; else when the worker has left");
    ClusterOptions::fields(v);
  }
};

int drain(const DrainOptions& options) {
  if (options.worker.empty()) return report(invalid_argument("say which worker: tessera drain WORKER"));
  auto answer = ask_gateway(options, "POST", "/api/v1/cluster/drain", Json{{"worker", options.worker}});
  if (!answer.ok()) return report(answer.status());
  for (bool told = false; !options.no_wait;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    auto cluster = ask_gateway(options, "GET", "/api/v1/cluster");
    if (!cluster.ok()) return report(cluster.status());
    const Json* found = nullptr;
    for (const Json& worker : (*cluster)["workers"])
      if (text_at(worker, "name") == options.worker && text_at(worker, "state") != "lost") found = &worker;
    if (found == nullptr) break;
    if (!told)
      std::fprintf(stderr, "draining %s: its sessions move to other workers\n", options.worker.c_str());
    told = true;
  }
  std::printf("%s %s\n", options.worker.c_str(), options.no_wait ? "drains" : "has left");
  return kDone;
}

struct TokenOptions : ClusterOptions {
  bool rotate = false;
  template <typename V>
  void fields(V& v) {
    v("rotate", rotate, "revoke all older tokens; workers that have joined stay");
    ClusterOptions::fields(v);
  }
};

int token(const TokenOptions& options) {
  auto answer = ask_gateway(options, "POST", "/api/v1/cluster/tokens", Json{{"rotate", options.rotate}});
  if (!answer.ok()) return report(answer.status());
  if (options.json)
    std::printf("%s\n", dump_json(*answer).c_str());
  else
    std::printf("tessera worker --join %s\n", text_at(*answer, "join").c_str());
  return kDone;
}

}  // namespace

Command status_command() {
  auto options = std::make_shared<StatusOptions>();
  return {"status", "workers, block coverage, links and sessions of a cluster", "  tessera status --watch",
          fields_of(*options), [options] { return status(*options); }};
}

Command plan_command() {
  auto options = std::make_shared<PlanOptions>();
  return {"plan", "which worker hosts what, how fast that should be, and why",
          "  tessera plan --json\n"
          "  tessera plan --model ORG/NAME --worker rack:80GiB:3000:700 --worker attic:24GiB:900:80 --rtt 20",
          fields_of(*options), [options] { return plan(*options); }};
}

Command drain_command() {
  auto options = std::make_shared<DrainOptions>();
  return {"drain", "empties a worker: its sessions go on elsewhere, then it leaves", "  tessera drain attic",
          fields_of(*options), [options] { return drain(*options); }};
}

Command token_command() {
  auto options = std::make_shared<TokenOptions>();
  return {"token", "prints a new join command", "  tessera token --rotate", fields_of(*options),
          [options] { return token(*options); }};
}

}  // namespace tessera::app
