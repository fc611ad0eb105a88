#include "gateway/job_service.h"

#include <algorithm>
#include <future>
#include <nlohmann/json.hpp>

#include "api/openai_request.h"
#include "api/openai_response.h"
#include "api/tenant_salt.h"
#include "base/secrets.h"
#include "gateway/webhook.h"
#include "obs/log.h"

namespace tessera::gateway {
namespace {

using control::Job;
using control::JobOutcome;
using control::JobState;
using std::chrono::milliseconds;

constexpr size_t kMostInBatch = 512;     // creations of one commit
constexpr size_t kMostPending = 20'000;  // creations that wait for one
constexpr size_t kIdBytes = 16;
constexpr int kForgottenAtOnce = 1000;
constexpr int kWebhooksAtOnce = 4;  // one after another, within their lease
constexpr std::chrono::seconds kSweepEvery{10};
constexpr milliseconds kRetryFinish{200};
constexpr milliseconds kStatsBelieved{1000};  // for the estimate that a new job is told

struct Accepted {
  std::shared_ptr<api::Completer> completer;
  api::CompletionRequest request;
};

// The request behind a job, checked as one that came over HTTP. `caller` null: a job that was checked before.
api::ApiResult<Accepted> accept(const control::JobRequest& job, const api::ModelSet& models,
                                const api::Caller* caller) {
  if (job.type != api::kTextType)
    return api::invalid_request("There is no engine for jobs of type '" + job.type + "' here, only for '" +
                                    std::string(api::kTextType) + "'.",
                                "type", "unsupported_type");
  if (caller && !caller->may_use_type(job.type)) return api::type_not_allowed(job.type);
  Result<Json> params = parse_json(job.params);
  if (!params.ok()) return api::error_from_status(params.status());
  if (!params->is_object()) return api::invalid_request("'params' must be an object.", "params");
  params->erase("stream");  // a job's answer is whole
  auto name = api::requested_model(*params);
  if (auto* error = std::get_if<api::ApiError>(&name)) return std::move(*error);
  auto completer = caller ? models.find_for(*caller, std::get<0>(name)) : models.find(std::get<0>(name));
  if (auto* error = std::get_if<api::ApiError>(&completer)) return std::move(*error);
  const api::ModelInfo info = std::get<0>(completer)->info();
  auto parsed = params->contains("prompt") ? api::parse_text_completion(*params, info)
                                           : api::parse_chat_completion(*params, info);
  if (auto* error = std::get_if<api::ApiError>(&parsed)) return std::move(*error);
  api::CompletionRequest request = std::get<0>(std::move(parsed)).completion;
  if (request.n != 1 || request.prompts.size() > 1)
    return api::invalid_request("A job has one answer: send several jobs.", "n");
  request.model = info.id;
  request.cache_salt = api::tenant_salt(job.tenant, request.cache_salt);
  request.priority = static_cast<int>(std::clamp<int64_t>(job.priority, -1'000'000, 1'000'000));
  return Accepted{std::get<0>(std::move(completer)), std::move(request)};
}

// What an attempt that ended so means for its job.
JobOutcome::Kind kind_of(const api::ApiError& error, bool begun) {
  // No room, no route, no such model just now: the job waits for them, as a request in a queue does.
  const bool no_room = error.status == 404 || error.status == 429 || error.status == 503;
  if (no_room && !begun) return JobOutcome::kNoRoom;
  return no_room || error.status >= 500 ? JobOutcome::kTryAgain : JobOutcome::kFailed;
}

}  // namespace

// One run of a job: collects the answer. The completer's calls come one after another.
class JobService::Attempt final : public api::CompletionSink {
 public:
  Attempt(JobService& service, const Job& job) : service_(service), model_(job.request.model) {
    outcome_.id = job.id;
    outcome_.owner = job.owner;
    outcome_.epoch = job.epoch;
  }
  // On the service's thread, as cancel().
  void start(const Accepted& accepted) {
    cancel_ = accepted.completer->submit(accepted.request, self_.lock());
  }
  void cancel() {
    if (auto cancel = std::exchange(cancel_, nullptr)) cancel();
  }
  void keep_self(const std::shared_ptr<Attempt>& self) { self_ = self; }

  void on_start(const Start&) override {}
  bool on_delta(const api::Delta& delta) override {
    begun_ = true;
    text_ += delta.text;
    reasoning_ += delta.reasoning;
    if (delta.finish != FinishReason::kNone) finish_ = delta.finish;
    return true;
  }
  void on_done(const api::Usage& usage) override {
    Json result{{"response", text_},
                {"model", model_},
                {"finish_reason", api::finish_name(finish_)},
                {"usage",
                 {{"prompt_tokens", usage.prompt_tokens},
                  {"completion_tokens", usage.completion_tokens},
                  {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
                  {"cached_tokens", usage.cached_tokens}}}};
    if (!reasoning_.empty()) result["reasoning"] = reasoning_;
    report(JobOutcome::kDone, dump_json(result));
  }
  void on_error(const api::ApiError& error) override {
    if (error.status == 499) return;  // we cancelled it
    report(kind_of(error, begun_), error.message);
  }

 private:
  void report(JobOutcome::Kind kind, std::string text) {
    outcome_.kind = kind;
    outcome_.text = std::move(text);
    service_.thread_->post(
        [&service = service_, outcome = outcome_] { service.ended(outcome.id, outcome.epoch, outcome); });
  }

  JobService& service_;
  const std::string model_;
  JobOutcome outcome_;
  std::weak_ptr<Attempt> self_;
  std::function<void()> cancel_;
  bool begun_ = false;
  std::string text_, reasoning_;
  FinishReason finish_ = FinishReason::kNone;
};

JobService::JobService(JobServiceOptions options, control::Jobs& jobs, const api::ModelSet& models,
                       obs::Metrics& metrics, const Clock& clock)
    : options_(std::move(options)),
      jobs_(jobs),
      models_(models),
      clock_(clock),
      created_(metrics.counter("tessera_jobs_created_total", "Jobs that were accepted")),
      completed_(
          metrics.counter("tessera_jobs_ended_total", "Jobs that ended here", {{"state", "completed"}})),
      failed_(metrics.counter("tessera_jobs_ended_total", "Jobs that ended here", {{"state", "failed"}})),
      retried_(metrics.counter("tessera_job_retries_total", "Attempts that failed and are made again")),
      running_gauge_(metrics.gauge("tessera_jobs_running", "Jobs that this gateway runs now")),
      webhooks_(make_thread_executor("webhooks")),
      thread_(make_thread_executor("jobs")) {
  thread_->post([this] { look(); });
}

JobService::~JobService() {
  webhooks_->stop();
  thread_->stop();
}

std::optional<api::ApiError> JobService::check(control::JobRequest& request,
                                               const api::Caller& caller) const {
  auto accepted = accept(request, models_, &caller);
  if (auto* error = std::get_if<api::ApiError>(&accepted)) return std::move(*error);
  request.model = std::get<Accepted>(accepted).request.model;
  if (request.webhook_url.empty()) return std::nullopt;
  if (Status status = check_webhook(request.webhook_url, options_.webhook_hosts); !status.ok())
    return api::invalid_request(status.message(), "webhook");
  return std::nullopt;
}

Result<std::string> JobService::draw_id() {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, random_text(kIdBytes));
  return "job_" + text;
}

void JobService::create(control::Jobs::NewJob job, Done<Result<Job>> done) {
  {
    MutexLock lock(mutex_);
    if (pending_.size() < kMostPending) {
      pending_.push_back({std::move(job), std::move(done)});
      done = nullptr;
    }
  }
  if (done) return done(resource_exhausted("too many jobs are being created: try again"));
  flush_soon();
}

void JobService::flush_soon() {
  MutexLock lock(mutex_);
  if (std::exchange(flush_posted_, true)) return;
  thread_->post([this] { flush(); });
}

// Everything that came while the last commit ran shares the next one.
void JobService::flush() {
  std::vector<Pending> pending;
  {
    MutexLock lock(mutex_);
    flush_posted_ = false;
    const size_t count = std::min(pending_.size(), kMostInBatch);
    const auto end = pending_.begin() + static_cast<std::ptrdiff_t>(count);
    pending.assign(std::make_move_iterator(pending_.begin()), std::make_move_iterator(end));
    pending_.erase(pending_.begin(), end);
  }
  commit_created(pending);
  commit_outcomes();
  fill();
  bool more = false;
  {
    MutexLock lock(mutex_);
    more = !pending_.empty();
  }
  if (more) flush_soon();
}

void JobService::commit_created(std::vector<Pending>& pending) {
  if (pending.empty()) return;
  std::vector<control::Jobs::NewJob> jobs;
  for (const Pending& one : pending) jobs.push_back(one.job);
  auto made = jobs_.create(jobs);
  // What the database refuses of one must not fail the others.
  if (!made.ok() && made.status().code() != Code::kUnavailable && pending.size() > 1) {
    for (Pending& one : pending) {
      std::vector<Pending> alone;
      alone.push_back(std::move(one));
      commit_created(alone);
    }
    return;
  }
  for (size_t i = 0; i < pending.size(); ++i) {
    Result<Job> job = made.ok() ? (*made)[i] : Result<Job>(made.status());
    if (job.ok() && job->id == pending[i].job.id) created_.inc();
    pending[i].done(std::move(job));
  }
}

void JobService::commit_outcomes() {
  if (outcomes_.empty()) return;
  const std::vector<JobOutcome> outcomes = std::exchange(outcomes_, {});
  const auto counted = jobs_.finish(outcomes);
  if (!counted.ok()) {
    // They are kept until the database takes them, or the leases have ended and others did the work.
    outcomes_ = outcomes;
    if (!std::exchange(told_database_away_, true))
      obs::log_warn("jobs", "results wait for the database", {{"error", counted.status().message()}});
    thread_->post_after(kRetryFinish, [this] { flush_soon(); });
    return;
  }
  told_database_away_ = false;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    if ((*counted)[i]) {
      if (outcomes[i].kind == JobOutcome::kDone) completed_.inc();
      if (outcomes[i].kind == JobOutcome::kFailed) failed_.inc();
      if (outcomes[i].kind == JobOutcome::kTryAgain) retried_.inc();
    } else {
      obs::log_info("jobs", "a result came too late: the job was cancelled or is run elsewhere",
                    {{"job", outcomes[i].id}});
    }
    look_at(outcomes[i].id);
  }
}

void JobService::fill() {
  const int room = options_.slots - static_cast<int>(running_.size());
  if (stopping_ || room <= 0 || !outcomes_.empty()) return;
  control::Jobs::Taker taker;
  taker.owner = options_.owner;
  taker.region = options_.region;
  taker.lease = options_.lease;
  for (const api::ModelInfo& model : models_.list()) taker.models.push_back(model.id);
  if (running_.empty()) prolonged_ = clock_.now();
  auto taken = jobs_.take(taker, room);
  if (!taken.ok()) return;
  for (Job& job : *taken) run(std::move(job));
}

void JobService::run(Job job) {
  const std::string id = job.id;
  JobOutcome refused;
  refused.id = id;
  refused.owner = job.owner;
  refused.epoch = job.epoch;
  auto accepted = accept(job.request, models_, nullptr);
  if (auto* error = std::get_if<api::ApiError>(&accepted)) {
    refused.kind = kind_of(*error, false);
    refused.text = error->message;
    outcomes_.push_back(std::move(refused));
    return flush_soon();
  }
  auto attempt = std::make_shared<Attempt>(*this, job);
  attempt->keep_self(attempt);
  Running& running = running_[id];
  running.job = std::move(job);
  running.attempt = attempt;
  running_gauge_.set(static_cast<double>(running_.size()));
  refused.kind = JobOutcome::kTryAgain;
  refused.text = "it took longer than " + std::to_string(running.job.request.timeout_ms / 1000) + " s";
  running.timeout = thread_->post_after(milliseconds(running.job.request.timeout_ms), [this, refused] {
    const auto found = running_.find(refused.id);
    if (found == running_.end() || found->second.job.epoch != refused.epoch) return;
    const auto slow = found->second.attempt;
    ended(refused.id, refused.epoch, refused);
    slow->cancel();
  });
  tell_watchers(running.job);
  auto& [completer, request] = std::get<Accepted>(accepted);
  request.request_id = id;
  attempt->start(std::get<Accepted>(accepted));
}

void JobService::ended(const std::string& id, int64_t epoch, JobOutcome outcome) {
  const auto found = running_.find(id);
  if (found == running_.end() || found->second.job.epoch != epoch) return;  // cancelled, or too slow
  thread_->cancel(found->second.timeout);
  running_.erase(found);
  running_gauge_.set(static_cast<double>(running_.size()));
  outcomes_.push_back(std::move(outcome));
  flush_soon();
}

// Nobody waits for what it would say.
void JobService::stop_attempt(const std::string& id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  thread_->cancel(found->second.timeout);
  const auto attempt = found->second.attempt;
  running_.erase(found);
  running_gauge_.set(static_cast<double>(running_.size()));
  attempt->cancel();
}

void JobService::find(const std::string& id, const std::string& tenant, Done<Result<Job>> done) {
  thread_->post([this, id, tenant, done = std::move(done)] { done(jobs_.find(id, tenant)); });
}

void JobService::cancel(const std::string& id, const std::string& tenant, Done<Result<Job>> done) {
  thread_->post([this, id, tenant, done = std::move(done)] {
    Result<Job> job = jobs_.cancel(id, tenant);
    if (job.ok() && job->ended()) {
      stop_attempt(id);
      tell_watchers(*job);
    }
    done(std::move(job));
    fill();
  });
}

void JobService::list(const control::JobFilter& filter, Done<Result<std::vector<Job>>> done) {
  thread_->post([this, filter, done = std::move(done)] { done(jobs_.list(filter)); });
}

void JobService::stats(const std::string& region, Done<Result<control::QueueStats>> done) {
  thread_->post([this, region, done = std::move(done)] { done(jobs_.stats(region)); });
}

void JobService::standing(const Job& job, Done<JobStanding> done) {
  if (job.state != JobState::kQueued) return done({});
  thread_->post([this, job, done = std::move(done)] {
    JobStanding standing;
    const auto position = jobs_.position(job);
    if (!position.ok()) return done(standing);
    if (*position < control::Jobs::kMostCounted) standing.position = *position;
    const MonotonicTime now = clock_.now();
    if (!stats_ || now >= stats_until_) {
      if (auto stats = jobs_.stats({}); stats.ok()) stats_ = std::move(*stats);
      stats_until_ = now + kStatsBelieved;
    }
    if (stats_) standing.wait = wait_of(*stats_, standing.position.value_or(stats_->queued));
    done(standing);
  });
}

std::optional<double> JobService::wait_of(const control::QueueStats& stats, int64_t before) const {
  if (stats.service_ms <= 0) return std::nullopt;
  const int64_t slots = options_.slots * std::max<int64_t>(1, stats.owners);
  // Those that run take up slots as those before it do; whole rounds of all slots go by.
  const int64_t rounds = (before + stats.running) / slots;
  return static_cast<double>(rounds) * stats.service_ms / 1e3;
}

void JobService::watch(const std::string& id, milliseconds limit,
                       std::function<bool(const std::optional<Job>&)> changed) {
  thread_->post([this, id, limit, changed = std::move(changed)] {
    Watch watch;
    watch.id = id;
    watch.changed = changed;
    watch.until = clock_.now() + limit;
    watches_.push_back(std::move(watch));
    look_at(id);
    // To the point, not at the next look.
    thread_->post_after(limit, [this] { end_watches(); });
  });
}

void JobService::end_watches() {
  const MonotonicTime now = clock_.now();
  std::vector<Watch> late;
  for (auto watch = watches_.begin(); watch != watches_.end();) {
    if (watch->until > now) {
      ++watch;
      continue;
    }
    late.push_back(std::move(*watch));
    watch = watches_.erase(watch);
  }
  for (const Watch& watch : late) watch.changed(std::nullopt);
}

void JobService::tell_watchers(const Job& job) {
  for (auto watch = watches_.begin(); watch != watches_.end();) {
    const bool news = watch->id == job.id && (!watch->told_once || watch->told != job.state);
    if (news) {
      watch->told_once = true;
      watch->told = job.state;
    }
    if (news && (!watch->changed(job) || job.ended()))
      watch = watches_.erase(watch);
    else
      ++watch;
  }
}

void JobService::look_at(const std::string& id) {
  const auto watched = [&](const Watch& watch) { return watch.id == id; };
  if (std::none_of(watches_.begin(), watches_.end(), watched)) return;
  if (const auto job = jobs_.find(id, {}); job.ok()) tell_watchers(*job);
}

void JobService::look() {
  if (stopping_) return;
  const MonotonicTime now = clock_.now();
  if (!running_.empty() && now - prolonged_ >= options_.lease / 3) {
    prolonged_ = now;
    prolong();
  }
  (void)jobs_.end_leases();
  fill();
  // What other gateways run.
  std::vector<std::string> elsewhere;
  for (const Watch& watch : watches_)
    if (running_.count(watch.id) == 0) elsewhere.push_back(watch.id);
  for (const std::string& id : elsewhere) look_at(id);
  deliver_webhooks();
  if (now - swept_ >= kSweepEvery) {
    swept_ = now;
    const int64_t kept_ms = std::chrono::duration_cast<milliseconds>(options_.kept).count();
    (void)jobs_.forget_ended_before(clock_.unix_time_ms() - kept_ms, kForgottenAtOnce);
  }
  thread_->post_after(options_.poll, [this] { look(); });
}

// What is no longer ours was cancelled, or somebody else runs it: we were too slow to prolong.
void JobService::prolong() {
  const auto held = jobs_.prolong(options_.owner, options_.lease);
  if (!held.ok()) return;
  std::vector<std::string> lost;
  for (const auto& [id, running] : running_)
    if (std::find(held->begin(), held->end(), id) == held->end()) lost.push_back(id);
  for (const std::string& id : lost) {
    stop_attempt(id);
    look_at(id);
  }
}

void JobService::deliver_webhooks() {
  if (options_.webhook_hosts.empty() || webhooks_under_way_ > 0) return;
  auto due = jobs_.take_webhooks(kWebhooksAtOnce);
  if (!due.ok()) return;
  for (const control::WebhookDelivery& delivery : *due) {
    ++webhooks_under_way_;
    webhooks_->post([this, delivery] {
      const Status status = deliver_webhook(delivery, clock_.unix_time_ms() / 1000);
      if (!status.ok())
        obs::log_info("jobs", "a webhook was not delivered",
                      {{"job", delivery.job.id}, {"attempt", delivery.attempt}, {"error", status.message()}});
      thread_->post([this, delivery, ok = status.ok()] {
        --webhooks_under_way_;
        (void)jobs_.webhook_done(delivery, ok);
      });
    });
  }
}

void JobService::stop() {
  std::promise<void> stopped;
  thread_->post([this, &stopped] {
    stopping_ = true;
    while (!running_.empty()) {
      JobOutcome outcome;
      const Job& job = running_.begin()->second.job;
      outcome.id = job.id;
      outcome.owner = job.owner;
      outcome.epoch = job.epoch;
      outcome.kind = JobOutcome::kGiveBack;
      outcomes_.push_back(outcome);
      stop_attempt(outcome.id);
    }
    for (const Watch& watch : std::exchange(watches_, {})) watch.changed(std::nullopt);
    flush();
    stopped.set_value();
  });
  stopped.get_future().wait();
}

}  // namespace tessera::gateway
