#include "gateway/engine_hub.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "gateway/engine_request.h"
#include "obs/log.h"

namespace tessera::gateway {
namespace {

constexpr const char* kOwn = "";  // the target of our own workers
constexpr int kMostAttempts = 3;
constexpr size_t kPrefixStep = 512;  // bytes of a prompt between two of its remembered beginnings
constexpr size_t kPrefixesOfOne = 32;
constexpr int kUnknownContext = 1 << 22;
constexpr int kUnknownVocabulary = 1 << 20;

void average(double& mean, double value, double weight) {
  mean = mean == 0 ? value : (1 - weight) * mean + weight * value;
}

double seconds(MonotonicTime duration) {
  return std::chrono::duration<double>(duration).count();
}

const char* breaker_name(control::CircuitBreaker::State state) {
  switch (state) {
    case control::CircuitBreaker::State::kOpen:
      return "open";
    case control::CircuitBreaker::State::kHalfOpen:
      return "trial";
    case control::CircuitBreaker::State::kClosed:
      break;
  }
  return "closed";
}

bool serves_model(const EngineReport& report, const std::string& model) {
  return std::any_of(report.models.begin(), report.models.end(),
                     [&](const EngineModel& entry) { return entry.name == model; });
}

}  // namespace

struct EngineHub::Request {
  uint64_t id = 0;
  std::string model;
  api::CompletionRequest request;
  std::shared_ptr<api::CompletionSink> sink;
  EngineFeatures needs = 0;
  int choices = 1;
  std::vector<size_t> prefixes;  // keys of its beginnings
  double prompt_bytes = 0;
  std::set<std::string> tried;
  api::ApiError last_error;  // of an attempt
  int attempts = 0;
  std::string target;  // a worker, or kOwn
  bool running = false;
  bool started = false;  // the sink heard on_start: no other attempt
  bool over = false;
  std::function<void()> cancel_own;
  MonotonicTime sent_at{}, first_at{}, last_at{};
  int tokens = 0;
};

// One model, served by our own workers, by engines, or by both.
class RoutedCompleter final : public api::Completer {
 public:
  RoutedCompleter(EngineHub& hub, api::ModelInfo info, std::shared_ptr<api::Completer> own, bool foreign)
      : hub_(hub), info_(std::move(info)), own_(std::move(own)), foreign_(foreign) {}

  api::ModelInfo info() const override { return info_; }
  std::function<void()> submit(api::CompletionRequest request,
                               std::shared_ptr<api::CompletionSink> sink) override {
    if (!foreign_) return own_->submit(std::move(request), std::move(sink));
    const uint64_t id = ++hub_.last_id_;
    hub_.executor_->post([&hub = hub_, id, model = info_.id, request = std::move(request),
                          sink = std::move(sink)] { hub.submit(id, model, request, sink); });
    // Through the executor: a sink may cancel from within one of its own calls.
    return [&hub = hub_, id] { hub.executor_->post([&hub, id] { hub.cancel(id); }); };
  }
  Result<std::vector<TokenId>> tokenize(const std::string& text, bool special) const override {
    if (own_ == nullptr) return no_tokenizer();
    return own_->tokenize(text, special);
  }
  Result<std::vector<TokenId>> tokenize_chat(const OrderedJson& messages, const OrderedJson* variables,
                                             text::ChatEnding ending) const override {
    if (own_ == nullptr) return no_tokenizer();
    return own_->tokenize_chat(messages, variables, ending);
  }
  Result<std::string> detokenize(const std::vector<TokenId>& ids) const override {
    if (own_ == nullptr) return no_tokenizer();
    return own_->detokenize(ids);
  }
  std::string token_text(TokenId id) const override {
    return own_ == nullptr ? std::string() : own_->token_text(id);
  }

 private:
  Status no_tokenizer() const {
    return unsupported("the tokenizer of " + info_.id + " is in the engine that serves it");
  }
  EngineHub& hub_;
  const api::ModelInfo info_;
  const std::shared_ptr<api::Completer> own_;  // null: only engines serve it
  const bool foreign_;
};

// Between our own completer and the request's sink: measures, and lets a refusal go to an engine instead.
class EngineHub::OwnSink final : public api::CompletionSink {
 public:
  OwnSink(EngineHub& hub, RequestPtr request) : hub_(hub), request_(std::move(request)) {}
  void on_start(const Start& start) override { start_ = start; }
  bool on_delta(const api::Delta& delta) override {
    begin();
    hub_.executor_->post(
        [&hub = hub_, request = request_, tokens = static_cast<int>(delta.token_ids.size())] {
          hub.note_token(*request, tokens);
        });
    return request_->sink->on_delta(delta);
  }
  void on_done(const api::Usage& usage) override {
    begin();
    request_->sink->on_done(usage);
    hub_.executor_->post([&hub = hub_, request = request_] {
      if (request->over) return;
      hub.end_attempt(*request);
      hub.remember_prefix(*request);
      hub.finish(request, "ok");
    });
  }
  void on_error(const api::ApiError& error) override {
    const bool told = begun_;
    if (told) request_->sink->on_error(error);
    hub_.executor_->post([&hub = hub_, request = request_, error, told] {
      if (request->over) return;
      hub.end_attempt(*request);
      if (told) return hub.finish(request, "failed");
      hub.attempt_failed(request, error, error.status >= 500);
    });
  }

 private:
  // The head is sent with the first delta: until then another way may answer.
  void begin() {
    if (std::exchange(begun_, true)) return;
    request_->sink->on_start(start_);
  }
  EngineHub& hub_;
  const RequestPtr request_;
  Start start_;
  bool begun_ = false;
};

EngineHub::EngineHub(api::ModelSet& models, obs::Metrics& metrics, const Clock& clock)
    : models_(models),
      metrics_(metrics),
      clock_(clock),
      last_id_(system_entropy() >> 16),
      executor_(make_thread_executor("engines")) {}

EngineHub::~EngineHub() {
  executor_->stop();
}

void EngineHub::connect(Send send) {
  MutexLock lock(mutex_);
  send_ = std::move(send);
}

void EngineHub::settle() {
  drain(*executor_);
}

bool EngineHub::any_ready() const {
  MutexLock lock(mutex_);
  return std::any_of(view_.begin(), view_.end(),
                     [](const EngineView& view) { return view.report.state == EngineState::kReady; });
}

std::vector<EngineView> EngineHub::view() const {
  MutexLock lock(mutex_);
  return view_;
}

void EngineHub::refresh_view() {
  std::vector<EngineView> view;
  for (const auto& [worker, engine] : engines_) {
    if (!engine.alive) continue;
    EngineView& entry = view.emplace_back();
    entry.worker = worker;
    entry.report = engine.report;
    entry.draining = engine.draining;
    entry.breaker = breaker_name(engine.breaker.state());
    entry.in_flight = engine.in_flight;
    for (const auto& [model, speed] : engine.speed) {
      if (speed.token_s == 0 && speed.first_token_s == 0) continue;
      entry.first_token_s = speed.first_token_s;
      entry.token_s = speed.token_s;
    }
  }
  MutexLock lock(mutex_);
  view_ = std::move(view);
}

// --- who there is ---

void EngineHub::add_own(std::shared_ptr<api::Completer> completer) {
  executor_->post([this, completer = std::move(completer)] {
    const std::string model = completer->info().id;
    own_[model] = completer;
    published_.erase(model);
    publish(model);
  });
  settle();  // it is served when this returns
}

void EngineHub::remove_own(const std::string& model) {
  executor_->post([this, model] {
    own_.erase(model);
    published_.erase(model);
    publish(model);
  });
  settle();
}

// Makes the completer of a model what its ways are now.
void EngineHub::publish(const std::string& model) {
  const auto own = own_.find(model);
  api::ModelInfo info;
  bool foreign = false;
  EngineFeatures features = 0;
  int context = 0;
  for (const auto& [worker, engine] : engines_) {
    for (const EngineModel& entry : engine.report.models) {
      if (entry.name != model) continue;
      foreign = true;
      features |= engine.report.features;
      context = std::max(context, entry.context_length > 0 ? entry.context_length : kUnknownContext);
    }
  }
  if (!foreign && own == own_.end()) {
    published_.erase(model);
    models_.remove(model);
    return;
  }
  if (own != own_.end()) {
    info = own->second->info();
    if (foreign && (features & engine_feature::kChat) != 0) info.has_chat_template = true;
  } else {
    info.id = model;
    info.context_length = context;
    info.vocab_size = kUnknownVocabulary;
    info.has_chat_template = (features & engine_feature::kChat) != 0;
  }
  info.beyond =
      features & (engine_feature::kTools | engine_feature::kJsonObject | engine_feature::kJsonSchema);
  const auto known = published_.find(model);
  if (known != published_.end()) {
    const api::ModelInfo before = known->second->info();
    info.created = before.created;
    if (before.context_length == info.context_length && before.beyond == info.beyond &&
        before.has_chat_template == info.has_chat_template && own == own_.end())
      return;
  }
  if (info.created == 0) info.created = clock_.unix_time_ms() / 1000;
  auto completer =
      std::make_shared<RoutedCompleter>(*this, info, own == own_.end() ? nullptr : own->second, foreign);
  if (foreign && known == published_.end())
    obs::log_info(
        "engine",
        own == own_.end() ? "a model is served by an engine" : "a model is served by an engine as well",
        {{"model", model}});
  published_[model] = completer;
  models_.add(std::move(completer));
}

void EngineHub::engine_reported(const std::string& worker, const EngineReport& report, bool draining) {
  executor_->post([this, worker, report, draining] {
    Engine& engine = engines_[worker];
    std::set<std::string> models;
    for (const EngineModel& model : engine.report.models) models.insert(model.name);
    const bool new_models = !report.models.empty() && (engine.report.models != report.models ||
                                                       engine.report.features != report.features);
    const bool was_down = !engine.alive || engine.report.state != EngineState::kReady;
    // While it is away its models stay known: their requests get 503 and not 404.
    const EngineReport before = std::exchange(engine.report, report);
    if (report.models.empty()) {
      engine.report.models = before.models;
      engine.report.features = before.features;
    }
    for (const EngineModel& model : engine.report.models) models.insert(model.name);
    engine.alive = true;
    engine.draining = draining;
    if (was_down && report.state == EngineState::kReady)
      engine.breaker.succeeded();  // it passed the probes again
    if (report.waiting == 0 && report.running > 0)
      engine.width = std::max(engine.width, 1.0 * report.running);
    if (new_models)
      for (const std::string& model : models) publish(model);
    measure(worker, engine);
    refresh_view();
  });
}

void EngineHub::engine_lost(const std::string& worker, const Status& cause, bool for_good) {
  executor_->post([this, worker, cause, for_good] {
    const auto found = engines_.find(worker);
    if (found == engines_.end()) return;
    found->second.alive = false;
    found->second.lost_because = cause.message();
    measure(worker, found->second);
    lose_requests(worker, cause.message());
    if (for_good) {
      const std::vector<EngineModel> models = found->second.report.models;
      engines_.erase(found);
      for (const EngineModel& model : models) {
        if (own_.count(model.name) > 0) published_.erase(model.name);
        publish(model.name);
      }
    }
    refresh_view();
  });
}

void EngineHub::lose_requests(const std::string& worker, const std::string& why) {
  std::vector<RequestPtr> lost;
  for (const auto& [id, request] : requests_)
    if (request->running && request->target == worker) lost.push_back(request);
  for (const RequestPtr& request : lost) {
    end_attempt(*request);
    api::ApiError error =
        api::service_unavailable("The worker " + worker + " of the engine was lost: " + why + ".");
    error.code = "engine_lost";
    attempt_failed(request, error, false);
  }
}

void EngineHub::measure(const std::string& worker, const Engine& engine) {
  const obs::Labels labels{{"worker_id", worker}, {"engine", engine.report.engine}};
  const auto set = [&](const char* name, const char* help, double value) {
    metrics_.gauge(name, help, labels).set(value);
  };
  set("tessera_engine_ready", "1 when another engine behind a worker serves",
      engine.alive && engine.report.state == EngineState::kReady ? 1 : 0);
  set("tessera_engine_running", "Requests that the engine runs, by its own count",
      std::max(engine.report.running, 0));
  set("tessera_engine_waiting", "Requests in the engine's queue, by its own count",
      std::max(engine.report.waiting, 0));
  set("tessera_engine_kv_use", "Share of the engine's KV cache in use, by its own count",
      std::max(engine.report.kv_use, 0.0));
  set("tessera_engine_breaker_open", "1 when requests are kept away from an engine that failed",
      engine.breaker.state() == control::CircuitBreaker::State::kClosed ? 0 : 1);
  set("tessera_engine_restarts", "Times that the worker started the engine's process again",
      static_cast<double>(engine.report.restarts));
  set("tessera_engine_miscounted", "Answers whose usage was absent or impossible",
      static_cast<double>(engine.report.miscounted));
}

// --- requests ---

void EngineHub::submit(uint64_t id, const std::string& model, api::CompletionRequest request,
                       std::shared_ptr<api::CompletionSink> sink) {
  auto made = std::make_shared<Request>();
  made->id = id;
  made->model = model;
  made->needs = needs_of(request);
  made->choices = request.n * std::max(1, static_cast<int>(request.prompts.size()));
  const std::string text = prompt_text(request);
  made->prompt_bytes = static_cast<double>(text.size());
  size_t key = std::hash<std::string>()(model + "/" + request.cache_salt);
  for (size_t at = 0; at < text.size() && made->prefixes.size() < kPrefixesOfOne; at += kPrefixStep) {
    const std::string_view piece = std::string_view(text).substr(at, kPrefixStep);
    key = key * 1099511628211u + std::hash<std::string_view>()(piece);
    made->prefixes.push_back(key);
  }
  made->request = std::move(request);
  made->sink = std::move(sink);
  requests_[id] = made;
  try_next(made);
}

void EngineHub::cancel(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  const RequestPtr request = found->second;
  if (request->running) {
    if (request->target == kOwn) {
      if (request->cancel_own) request->cancel_own();
    } else {
      MutexLock lock(mutex_);
      if (send_) send_(request->target, EngineCancel{request->id});
    }
    if (const auto engine = engines_.find(request->target); engine != engines_.end())
      engine->second.breaker.abandoned(clock_.now());
    end_attempt(*request);
  }
  finish(request, "cancelled");
}

EngineHub::Speed& EngineHub::speed_of(const std::string& target, const std::string& model) {
  return target == kOwn ? own_speed_[model] : engines_[target].speed[model];
}

double EngineHub::held_share(const Request& request, const std::string& target) const {
  size_t held = 0;
  for (const size_t key : request.prefixes) {
    const std::set<std::string>* targets = prefixes_.find(key);
    if (targets == nullptr || targets->count(target) == 0) break;
    ++held;
  }
  return request.prefixes.empty() ? 0
                                  : static_cast<double>(held) / static_cast<double>(request.prefixes.size());
}

void EngineHub::remember_prefix(const Request& request) {
  for (const size_t key : request.prefixes) prefixes_.touch(key).insert(request.target);
}

// The ways that this request may still go; `targets` gets their names in the same order.
std::vector<control::EngineOption> EngineHub::options_of(const Request& request,
                                                         std::vector<std::string>& targets) {
  std::vector<control::EngineOption> options;
  const auto add = [&](const std::string& target, const Speed& speed) -> control::EngineOption& {
    targets.push_back(target);
    control::EngineOption& option = options.emplace_back();
    option.in_flight = speed.in_flight;
    option.first_token_s = speed.first_token_s;
    option.measured_bytes = speed.prompt_bytes;
    option.token_s = speed.token_s;
    option.held_share = held_share(request, target);
    return option;
  };
  if (const auto own = own_.find(request.model); own != own_.end()) {
    control::EngineOption& option = add(kOwn, own_speed_[request.model]);
    option.name = "our own workers";
    option.features = own_features(own->second->info());
    option.local_exact = true;
    option.width = 4;
    if (request.tried.count(kOwn) > 0) option.serves = false, option.why_not = request.last_error.message;
  }
  const MonotonicTime now = clock_.now();
  for (auto& [worker, engine] : engines_) {
    if (!serves_model(engine.report, request.model)) continue;
    control::EngineOption& option = add(worker, engine.speed[request.model]);
    option.name = "worker " + worker + " (" + engine.report.engine +
                  (engine.report.version.empty() ? "" : " " + engine.report.version) + ")";
    option.features = engine.report.features;
    option.in_flight = engine.in_flight;
    option.width = engine.width;
    // Its queue holds what others gave it, beside what we count as in flight.
    option.waiting = std::max(0, engine.report.waiting);
    option.kv_use = std::max(0.0, engine.report.kv_use);
    option.why_not =
        !engine.alive     ? "it is not connected: " + engine.lost_because
        : engine.draining ? "it drains"
        : engine.report.state != EngineState::kReady
            ? "it does not serve" + (engine.report.error.empty() ? "" : ": " + engine.report.error)
        : !engine.breaker.allows(now)     ? "it failed and is left alone for a while"
        : request.tried.count(worker) > 0 ? request.last_error.message
                                          : "";
    option.serves = option.why_not.empty();
  }
  return options;
}

void EngineHub::try_next(const RequestPtr& request) {
  for (;;) {
    std::vector<std::string> targets;
    const std::vector<control::EngineOption> options = options_of(*request, targets);
    control::EngineWish wish;
    wish.needs = request->needs;
    wish.prompt_bytes = request->prompt_bytes;
    wish.answer_tokens = std::min<double>(256, request->request.max_tokens.value_or(256));
    const int best = request->attempts < kMostAttempts ? control::choose_engine(options, wish) : -1;
    if (best < 0) {
      const bool able = std::any_of(options.begin(), options.end(), [&](const control::EngineOption& option) {
        return (option.features & wish.needs) == wish.needs;
      });
      api::ApiError error = request->last_error;
      if (request->attempts == 0 && able) {
        error = api::service_unavailable("Nothing serves " + request->model + " now. " +
                                         control::why_no_engine(options, wish) + ".");
      } else if (request->attempts == 0) {
        error = api::invalid_request("Nothing that serves " + request->model +
                                         " can do what the request asks for. " +
                                         control::why_no_engine(options, wish) + ".",
                                     "", "unsupported");
      }
      finish(request, "refused");
      request->sink->on_error(error);
      return;
    }
    request->target = targets[static_cast<size_t>(best)];
    request->tried.insert(request->target);
    ++request->attempts;
    if (request->target == kOwn) return send_to_own(request, own_[request->model]);
    if (send_to_engine(request, request->target)) return;
    if (request->over) return;
  }
}

bool EngineHub::send_to_engine(const RequestPtr& request, const std::string& worker) {
  auto message = to_engine(request->id, request->request, request->model);
  if (!message.ok()) {
    api::ApiError error = api::invalid_request(message.status().message());
    error.status = 413;
    finish(request, "refused");
    request->sink->on_error(error);
    return false;
  }
  Engine& engine = engines_[worker];
  bool sent = false;
  {
    MutexLock lock(mutex_);
    sent = send_ && send_(worker, std::move(*message));
  }
  if (!sent) {
    request->last_error = api::service_unavailable("The worker " + worker + " is not connected.");
    return false;
  }
  engine.breaker.begin(clock_.now());
  ++engine.in_flight;
  ++engine.speed[request->model].in_flight;
  request->running = true;
  request->sent_at = clock_.now();
  request->tokens = 0;
  return true;
}

void EngineHub::send_to_own(const RequestPtr& request, std::shared_ptr<api::Completer> own) {
  ++own_speed_[request->model].in_flight;
  request->running = true;
  request->sent_at = clock_.now();
  request->tokens = 0;
  request->cancel_own = own->submit(request->request, std::make_shared<OwnSink>(*this, request));
}

// The attempt's speed is learned, and its target is freed.
void EngineHub::end_attempt(Request& request) {
  if (!std::exchange(request.running, false)) return;
  Speed& speed = speed_of(request.target, request.model);
  --speed.in_flight;
  if (request.target != kOwn) --engines_[request.target].in_flight;
  if (request.tokens > 1) {
    const double each = seconds(request.last_at - request.first_at) / (request.tokens - 1) * request.choices;
    average(speed.token_s, std::max(each, 1e-6), 0.2);
  }
  request.cancel_own = nullptr;
}

void EngineHub::note_token(Request& request, int tokens) {
  if (tokens <= 0 || !request.running) return;
  const MonotonicTime now = clock_.now();
  if (request.tokens == 0) {
    request.first_at = now;
    Speed& speed = speed_of(request.target, request.model);
    // A prompt that was mostly held says nothing of what prefill costs.
    if (held_share(request, request.target) < 0.5 || speed.first_token_s == 0) {
      average(speed.first_token_s, seconds(now - request.sent_at), 0.2);
      average(speed.prompt_bytes, std::max(request.prompt_bytes, 1.0), 0.2);
    }
  }
  request.last_at = now;
  request.tokens += tokens;
}

void EngineHub::finish(const RequestPtr& request, const char* result) {
  if (std::exchange(request->over, true)) return;
  requests_.erase(request->id);
  const std::string target = request->target == kOwn ? "own" : request->target;
  metrics_
      .counter("tessera_routed_requests_total",
               "Requests of models that engines serve, by where the last attempt went and how it ended",
               {{"model", request->model}, {"target", target}, {"result", result}})
      .inc();
}

void EngineHub::attempt_failed(const RequestPtr& request, const api::ApiError& error, bool engine_fault) {
  if (engine_fault && request->target != kOwn)
    if (const auto found = engines_.find(request->target); found != engines_.end()) {
      found->second.breaker.failed(clock_.now());
      if (!found->second.breaker.allows(clock_.now()))
        obs::log_warn("engine", "an engine that failed is left alone for a while",
                      {{"worker", request->target}});
    }
  request->last_error = error;
  const bool elsewhere = error.status >= 500 || error.status == 429;
  if (!request->started && elsewhere) {
    obs::log_info("engine", "a request is tried elsewhere",
                  {{"id", request->request.request_id}, {"after", request->target}, {"why", error.message}});
    try_next(request);
    return;
  }
  finish(request, "failed");
  request->sink->on_error(error);
}

void EngineHub::receive(const std::string& worker, EngineMessage message) {
  executor_->post([this, worker, message = std::move(message)] {
    if (const auto* delta = std::get_if<EngineDelta>(&message)) on(worker, *delta);
    if (const auto* end = std::get_if<EngineEnd>(&message)) on(worker, *end);
  });
}

void EngineHub::on(const std::string& worker, const EngineDelta& delta) {
  const auto found = requests_.find(delta.id);
  if (found == requests_.end() || !found->second->running || found->second->target != worker) return;
  const RequestPtr request = found->second;
  auto translated = from_engine(delta, request->choices, request->request.chat);
  if (!translated.ok()) {
    {
      MutexLock lock(mutex_);
      if (send_) send_(worker, EngineCancel{request->id});
    }
    end_attempt(*request);
    api::ApiError error =
        api::service_unavailable("The worker " + worker + " sent " + translated.status().message() + ".");
    error.status = 502;
    error.retry_after_s.reset();
    return attempt_failed(request, error, true);
  }
  note_token(*request, delta.tokens);
  begin_answer(*request);
  if (!request->sink->on_delta(*translated)) cancel(request->id);
}

void EngineHub::begin_answer(Request& request) {
  if (std::exchange(request.started, true)) return;
  const EngineReport& report = engines_[request.target].report;
  api::CompletionSink::Start start;
  start.system_fingerprint = "fp_" + report.engine + (report.version.empty() ? "" : "_" + report.version);
  start.not_token_exact = "another engine computed this answer: " + report.engine +
                          (report.version.empty() ? "" : " " + report.version) + " on worker " +
                          request.target;
  request.sink->on_start(start);
}

void EngineHub::on(const std::string& worker, const EngineEnd& end) {
  const auto found = requests_.find(end.id);
  if (found == requests_.end() || !found->second->running || found->second->target != worker) return;
  const RequestPtr request = found->second;
  end_attempt(*request);
  Engine& engine = engines_[worker];
  if (end.status != 0) {
    if (!end.engine_fault && end.status < 500)
      engine.breaker.succeeded();  // it lives: the request was at fault
    if (!end.engine_fault && end.status >= 500) engine.breaker.abandoned(clock_.now());
    attempt_failed(request, error_of(end), end.engine_fault);
    refresh_view();
    return;
  }
  engine.breaker.succeeded();
  remember_prefix(*request);
  begin_answer(*request);
  finish(request, "ok");
  api::Usage usage;
  usage.prompt_tokens = end.prompt_tokens;
  usage.completion_tokens = end.completion_tokens;
  usage.cached_tokens = end.cached_tokens;
  request->sink->on_done(usage);
  refresh_view();
}

}  // namespace tessera::gateway
