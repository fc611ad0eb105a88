// jobs: the jobs of a running gateway.
#include <chrono>
#include <cstdio>
#include <thread>

#include "app/commands.h"
#include "app/gateway_client.h"
#include "net/url.h"

namespace tessera::app {
namespace {

constexpr const char* kJobs = "/api/v1/jobs";

struct JobsOptions : ClusterOptions {
  std::vector<std::string> words;
  std::string model;
  std::string params;
  std::string type = "llm";
  std::string region;
  std::string idempotency_key;
  std::string status;
  int max_tokens = 0;
  int priority = 0;
  int timeout = 300;
  int retries = 2;
  int limit = 50;
  bool here_only = false;
  bool wait = false;
  template <typename V>
  void fields(V& v) {
    v("=ACTION", words, "list, show ID, cancel ID, or submit TEXT");
    v("model", model, "submit: the model to ask; default: the only one that is served");
    v("max-tokens", max_tokens, "submit: the answer's length at most; 0 = what the context holds");
    v("params", params, "submit: all that is asked, as JSON, instead of TEXT");
    v("type", type, "submit: the kind of job");
    v("priority", priority, "submit: higher ones are run first");
    v("region", region, "submit: where it shall run");
    v("here-only", here_only, "submit: nowhere but in that region");
    v("timeout", timeout, "submit: seconds that an attempt may take");
    v("retries", retries, "submit: attempts after the first");
    v("idempotency-key", idempotency_key, "submit: sent twice with the same key, it is one job");
    v("wait", wait, "submit, show: until it has ended; then its answer is printed");
    v("status", status, "list: queued, running, completed, failed or cancelled ones");
    v("limit", limit, "list: so many at most");
    ClusterOptions::fields(v);
  }
};

std::string path_of(const std::string& id) {
  return std::string(kJobs) + "/" + net::percent_encode(id);
}

bool has_ended(const Json& job) {
  const std::string status = text_at(job, "status");
  return status != "queued" && status != "running";
}

int print_job(const JobsOptions& options, const Json& job) {
  const bool failed = has_ended(job) && text_at(job, "status") != "completed";
  const int status = options.wait && failed ? kFailed : kDone;
  if (options.json) {
    std::printf("%s\n", dump_json(job).c_str());
    return status;
  }
  if (options.wait && !failed) {
    std::printf("%s\n", text_at(job["result"], "response").c_str());
    return kDone;
  }
  std::printf("%s  %s", text_at(job, "job_id").c_str(), text_at(job, "status").c_str());
  if (const auto place = job.find("queue_position"); place != job.end() && place->is_number_integer())
    std::printf("  place %lld in the queue", static_cast<long long>(place->get<int64_t>()));
  if (const auto wait = job.find("estimated_wait_seconds"); wait != job.end() && wait->is_number())
    std::printf(", about %.0f s", wait->get<double>());
  std::printf("\n");
  if (const std::string why = text_at(job, "error"); !why.empty()) std::printf("  %s\n", why.c_str());
  if (job.contains("result") && job["result"].is_object())
    std::printf("%s\n", text_at(job["result"], "response").c_str());
  return status;
}

// Asks until it has ended, where that is wanted; a gateway that restarts meanwhile is waited for.
int follow(const JobsOptions& options, Json job) {
  const std::string id = text_at(job, "job_id");
  while (options.wait && !has_ended(job)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    auto answer = ask_gateway(options, "GET", path_of(id));
    if (!answer.ok() && answer.status().code() == Code::kNotFound) return report(answer.status());
    if (answer.ok()) job = std::move(*answer);
  }
  return print_job(options, job);
}

int submit(const JobsOptions& options) {
  Json params = Json::object();
  if (!options.params.empty()) {
    auto parsed = parse_json(options.params);
    if (!parsed.ok() || !parsed->is_object()) return report(invalid_argument("--params takes a JSON object"));
    params = std::move(*parsed);
  } else {
    std::string text;
    for (size_t i = 1; i < options.words.size(); ++i) text += (i > 1 ? " " : "") + options.words[i];
    if (text.empty()) return report(invalid_argument("say what to ask: tessera jobs submit TEXT"));
    params["messages"] = Json::array({{{"role", "user"}, {"content", text}}});
  }
  if (!options.model.empty()) params["model"] = options.model;
  if (options.max_tokens > 0) params["max_tokens"] = options.max_tokens;
  Json body{{"type", options.type},
            {"params", std::move(params)},
            {"priority", options.priority},
            {"allow_cross_region", !options.here_only},
            {"timeout_seconds", options.timeout},
            {"max_retries", options.retries}};
  if (!options.region.empty()) body["region"] = options.region;
  if (!options.idempotency_key.empty()) body["idempotency_key"] = options.idempotency_key;
  auto made = ask_gateway(options, "POST", kJobs, body);
  if (!made.ok()) return report(made.status());
  return follow(options, std::move(*made));
}

int list(const JobsOptions& options) {
  std::string path = std::string(kJobs) + "?limit=" + std::to_string(options.limit);
  if (!options.status.empty()) path += "&status=" + net::percent_encode(options.status);
  auto answer = ask_gateway(options, "GET", path);
  if (!answer.ok()) return report(answer.status());
  if (options.json) return print_json(*answer);
  std::printf("%-28s %-10s %-20s %8s %8s  %s\n", "JOB", "STATE", "CREATED", "PRIORITY", "ATTEMPTS", "MODEL");
  for (const Json& job : (*answer)["jobs"])
    std::printf("%-28s %-10s %-20s %8lld %8lld  %s\n", text_at(job, "job_id").c_str(),
                text_at(job, "status").c_str(), text_at(job, "created_at").c_str(),
                static_cast<long long>(job.value("priority", int64_t{0})),
                static_cast<long long>(job.value("attempts", int64_t{0})), text_at(job, "model").c_str());
  return kDone;
}

int run_jobs(const JobsOptions& options) {
  const std::string action = options.words.empty() ? "list" : options.words[0];
  if (action == "list" && options.words.size() <= 1) return list(options);
  if (action == "submit") return submit(options);
  if ((action == "show" || action == "cancel") && options.words.size() == 2) {
    auto job = ask_gateway(options, action == "show" ? "GET" : "DELETE", path_of(options.words[1]));
    if (!job.ok()) return report(job.status());
    return action == "show" ? follow(options, std::move(*job)) : print_job(options, *job);
  }
  report(invalid_argument("say what to do: list, show ID, cancel ID, or submit TEXT"));
  return kWrongUsage;
}

}  // namespace

Command jobs_command() {
  auto options = std::make_shared<JobsOptions>();
  return {"jobs", "work that a gateway keeps until it is done: list, show, cancel, submit",
          "  tessera jobs submit --wait \"Why is the sky blue?\"\n"
          "  tessera jobs list --status queued\n"
          "  tessera jobs cancel job_9xQ2bGc0T1mD8yVw4kZrLA",
          fields_of(*options), [options] { return run_jobs(*options); }};
}

}  // namespace tessera::app
