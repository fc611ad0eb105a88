#include "worker/external/external_engine.h"

#include <algorithm>

#include "net/sse.h"
#include "obs/log.h"
#include "worker/external/openai_wire.h"

namespace tessera::worker::external {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr milliseconds kDeadlineTick{50};
constexpr std::chrono::seconds kListAgain{10};  // its models may change while it runs
constexpr int kFailedLooks = 3;                 // in a row, until it counts as down
constexpr size_t kLongestEvent = size_t{4} << 20;

EngineEnd server_error(uint64_t id, int status, std::string code, std::string message, bool engine_fault) {
  EngineEnd end;
  end.id = id;
  end.status = status;
  end.type = "server_error";
  end.code = std::move(code);
  end.message = std::move(message);
  end.engine_fault = engine_fault;
  return end;
}

}  // namespace

struct ExternalEngine::Connection {
  std::unique_ptr<net::HttpClientConnection> http;
};

ExternalEngine::ExternalEngine(ExternalEngineOptions options, std::function<bool(EngineMessage)> send,
                               std::function<void()> changed)
    : options_(std::move(options)),
      profile_(*options_.profile),
      send_(std::move(send)),
      changed_(std::move(changed)),
      timer_(make_thread_executor("engine-timer")) {
  report_.engine = profile_.name;
  timer_->post_after(kDeadlineTick, [this] { check_deadlines(); });
  if (!options_.command.empty()) {
    SupervisorOptions supervisor;
    supervisor.command = options_.command;
    supervisor.name = profile_.name;
    supervisor.first_backoff = options_.first_backoff;
    supervisor_ = std::make_unique<Supervisor>(supervisor, [this](const std::string& why) {
      {
        MutexLock lock(mutex_);
        exited_ = true;
      }
      set_state(EngineState::kDown, "its process has ended and is started again: " + why);
    });
  }
  watch_thread_ = std::thread([this] { watch(); });
}

ExternalEngine::~ExternalEngine() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    waiting_.clear();
    for (auto& [id, stream] : held_) stream->canceller->cancel();
    threads.swap(threads_);
    wake_streams_.notify_all();
    wake_watch_.notify_all();
  }
  watch_canceller_->cancel();
  watch_thread_.join();
  for (std::thread& thread : threads) thread.join();
  timer_.reset();
  supervisor_.reset();
}

EngineReport ExternalEngine::report() const {
  MutexLock lock(mutex_);
  EngineReport report = report_;
  report.held = static_cast<int>(held_.size());
  if (supervisor_ != nullptr) report.restarts = supervisor_->restarts();
  return report;
}

void ExternalEngine::refuse(const EngineRequest& request, int status, std::string why) {
  send_(server_error(request.id, status, "engine_unavailable", std::move(why), false));
}

void ExternalEngine::submit(EngineRequest request) {
  auto stream = std::make_shared<Stream>();
  stream->deadline = SteadyClock::now() + options_.first_token;
  stream->request = std::move(request);
  std::string refused;
  {
    MutexLock lock(mutex_);
    if (stopping_ || draining_) {
      refused = "This worker is leaving.";
    } else if (report_.state != EngineState::kReady) {
      refused = std::string(profile_.title) + " does not serve now" +
                (report_.error.empty() ? "." : ": " + report_.error);
    } else if (static_cast<int>(held_.size()) >= options_.max_streams) {
      refused = "This worker holds " + std::to_string(held_.size()) + " requests already.";
    } else if (!held_.emplace(stream->request.id, stream).second) {
      refused = "The request's id is in use.";
    } else {
      waiting_.push_back(stream);
      if (idle_ < static_cast<int>(waiting_.size())) threads_.emplace_back([this] { stream_thread(); });
      wake_streams_.notify_one();
    }
  }
  if (!refused.empty()) refuse(stream->request, 503, std::move(refused));
}

void ExternalEngine::cancel(uint64_t id) {
  MutexLock lock(mutex_);
  if (const auto found = held_.find(id); found != held_.end()) found->second->canceller->cancel();
}

void ExternalEngine::cancel_all() {
  MutexLock lock(mutex_);
  for (auto& [id, stream] : held_) stream->canceller->cancel();
}

void ExternalEngine::drain() {
  bool empty = false;
  {
    MutexLock lock(mutex_);
    draining_ = true;
    empty = held_.empty();
  }
  if (empty) changed_();
}

void ExternalEngine::check_deadlines() {
  const auto now = SteadyClock::now();
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    for (auto& [id, stream] : held_) {
      if (now < stream->deadline || stream->too_late) continue;
      stream->too_late = true;
      stream->canceller->cancel();
    }
  }
  timer_->post_after(kDeadlineTick, [this] { check_deadlines(); });
}

// --- answering ---

void ExternalEngine::stream_thread() {
  Connection connection;
  for (;;) {
    std::shared_ptr<Stream> stream;
    {
      MutexLock lock(mutex_);
      ++idle_;
      wake_streams_.wait(mutex_,
                         [this]() TESSERA_REQUIRES(mutex_) { return stopping_ || !waiting_.empty(); });
      --idle_;
      if (stopping_) return;
      stream = std::move(waiting_.front());
      waiting_.pop_front();
    }
    run(*stream, connection);
  }
}

void ExternalEngine::run(Stream& stream, Connection& connection) {
  bool miscounted = false;
  EngineEnd end = answer(stream, connection, miscounted);
  bool too_late = false, begun = false;
  {
    MutexLock lock(mutex_);
    too_late = stream.too_late;
    begun = stream.begun;
  }
  // A stream may have ended well in the moment in which it was cancelled.
  const bool cancelled = end.status != 0 && stream.canceller->cancelled();
  if (cancelled && too_late) {
    const milliseconds limit = begun ? options_.silence : options_.first_token;
    end = server_error(stream.request.id, 504, "engine_timeout",
                       std::string(profile_.title) +
                           (begun ? " went silent: no token for " : " gave no token within ") +
                           std::to_string(limit.count()) + " ms.",
                       true);
  } else if (cancelled) {
    end = server_error(stream.request.id, 499, "cancelled", "The request was cancelled.", false);
  }
  finish(stream, end, miscounted);
  if (cancelled && profile_.abort_path != nullptr)
    EngineHttp(options_.address, profile_, nullptr).abort(stream.request.request_id);
}

void ExternalEngine::finish(Stream& stream, EngineEnd end, bool miscounted) {
  bool last = false;
  {
    MutexLock lock(mutex_);
    held_.erase(stream.request.id);
    if (end.status == 0) ++report_.answered;
    if (end.engine_fault) ++report_.failed;
    if (miscounted) ++report_.miscounted;
    last = draining_ && held_.empty();
  }
  if (end.engine_fault)
    obs::log_warn("engine", "the engine failed a request",
                  {{"id", stream.request.request_id}, {"status", end.status}, {"why", end.message}});
  if (miscounted)
    obs::log_warn("engine", "the engine's usage is absent or impossible: what came is counted instead",
                  {{"id", stream.request.request_id}, {"completion_tokens", end.completion_tokens}});
  send_(std::move(end));
  if (last) changed_();
}

EngineEnd ExternalEngine::answer(Stream& stream, Connection& connection, bool& miscounted) {
  const EngineRequest& request = stream.request;
  auto body = request_body(request, profile_);
  if (!body.ok())
    return server_error(request.id, 500, "internal_error", "The gateway sent a request that is none.", false);
  AnswerReader reader(request, profile_, [&](EngineDelta delta) {
    {
      MutexLock lock(mutex_);
      stream.begun = true;
      stream.deadline = SteadyClock::now() + options_.silence;
    }
    if (!send_(std::move(delta))) stream.canceller->cancel();  // nobody is there to read on
  });
  net::SseParser parser(kLongestEvent);
  bool reading = true;
  Status garbled;
  net::HttpClientRequest http;
  http.method = "POST";
  http.url = options_.address.base + request_path(request);
  http.headers = EngineHttp::headers(options_.address);
  http.headers.emplace_back("Accept", "text/event-stream");
  if (profile_.request_id_header != nullptr)
    http.headers.emplace_back(profile_.request_id_header, request.request_id);
  http.body = std::move(*body);
  http.ca_file = options_.address.ca_file;
  http.max_body_bytes = uint64_t{1} << 20;
  http.idle_timeout = std::max(options_.first_token, options_.silence) + std::chrono::seconds(5);
  http.repeatable = true;  // a server that closes an idle connection fails nobody
  http.canceller = stream.canceller;
  http.on_body = [&](std::string_view chunk) {
    garbled = parser.feed(chunk,
                          [&](const net::SseEvent& event) { reading = reading && reader.event(event.data); });
    // After [DONE] the rest is read, so that the connection can be kept; after an error nothing is worth it.
    return garbled.ok() && (reading || reader.end().status == 0);
  };
  if (connection.http == nullptr) {
    auto opened = net::HttpClientConnection::open(options_.address.base, options_.address.ca_file);
    if (!opened.ok()) return server_error(request.id, 502, "engine_failed", opened.status().message(), true);
    connection.http = std::move(*opened);
  }
  const auto reply = connection.http->send(http);
  if (reply.ok() && reply->status / 100 != 2) {
    EngineEnd end = engine_error(reply->status, reply->body, profile_);
    end.id = request.id;
    return end;
  }
  if (!garbled.ok())
    return server_error(request.id, 502, "engine_failed",
                        std::string(profile_.title) + " sent no events: " + garbled.message(), true);
  if (!reply.ok() && !reader.begun() && reader.end().code == "engine_failed" && reading)
    return server_error(request.id, 502, "engine_failed",
                        std::string(profile_.title) + " does not answer: " + reply.status().message(), true);
  EngineEnd end = reader.end();
  miscounted = end.status == 0 && reader.miscounted();
  return end;
}

// --- watching ---

bool ExternalEngine::stopped_within(milliseconds time) {
  MutexLock lock(mutex_);
  wake_watch_.wait_for(mutex_, time, [this]() TESSERA_REQUIRES(mutex_) { return stopping_; });
  return stopping_;
}

void ExternalEngine::set_state(EngineState state, std::string error) {
  bool new_state = false;
  {
    MutexLock lock(mutex_);
    new_state = report_.state != state;
    report_.state = state;
    report_.error = error;
    if (state != EngineState::kReady) report_.running = report_.waiting = -1, report_.kv_use = -1;
  }
  if (!new_state) return;
  if (state == EngineState::kDown)
    obs::log_warn("engine", std::string(profile_.title) + " is down", {{"why", error}});
  changed_();
}

void ExternalEngine::watch() {
  EngineHttp http(options_.address, profile_, watch_canceller_);
  last_answer_ = SteadyClock::now();
  do {
    look(http);
  } while (!stopped_within(options_.watch));
}

void ExternalEngine::look(EngineHttp& http) {
  bool ready = false, exited = false;
  {
    MutexLock lock(mutex_);
    exited = std::exchange(exited_, false);
    ready = report_.state == EngineState::kReady;
  }
  if (exited) was_ready_ = false;
  const auto now = SteadyClock::now();
  if (const Status health = http.health(); !health.ok()) {
    ++failed_looks_;
    const bool gone = health.code() == Code::kUnavailable && ready && supervisor_ == nullptr;
    if (ready && (failed_looks_ >= kFailedLooks || gone))
      set_state(EngineState::kDown, "it does not answer: " + health.message());
    else if (!ready && supervisor_ == nullptr)
      set_state(EngineState::kDown, "nothing answers at " + options_.address.base + ": " + health.message());
    if (supervisor_ != nullptr && was_ready_ && now - last_answer_ > options_.hung) {
      obs::log_warn("engine", "the engine's process answers nothing and is killed");
      supervisor_->kill_hung();
      was_ready_ = false;
    }
    return;
  }
  failed_looks_ = 0;
  last_answer_ = now;
  if (!ready) {
    auto probe = http.probe(options_.model);
    if (!probe.ok()) {
      // Of an engine that is still loading health may say yes and a completion no.
      const bool starting = supervisor_ != nullptr && probe.status().code() != Code::kNotFound;
      set_state(starting ? EngineState::kStarting : EngineState::kDown, probe.status().message());
      return;
    }
    if (options_.share_prefixes) probe->features |= engine_feature::kCacheSalt;
    for (const std::string& refusal : probe->refusals)
      obs::log_info("engine", std::string(profile_.title) + " cannot", {{"what", refusal}});
    obs::log_info(
        "engine", std::string(profile_.title) + " serves",
        {{"version", probe->version}, {"models", probe->models.size()}, {"first", probe->models[0].name}});
    {
      MutexLock lock(mutex_);
      report_.version = probe->version;
      report_.models = probe->models;
      report_.features = probe->features;
    }
    was_ready_ = true;
    listed_at_ = SteadyClock::now();
    set_state(EngineState::kReady, "");
  }
  const LoadFigures load = http.load();
  bool list_changed = false;
  std::vector<EngineModel> models;
  if (now - listed_at_ > kListAgain) {
    listed_at_ = now;
    if (auto listed = http.models(); listed.ok()) {
      models = std::move(*listed);
      if (!options_.model.empty())
        std::erase_if(models, [&](const EngineModel& m) { return m.name != options_.model; });
    }
  }
  {
    MutexLock lock(mutex_);
    report_.running = load.running;
    report_.waiting = load.waiting;
    report_.kv_use = load.kv_use;
    list_changed = !models.empty() && models != report_.models;
    if (list_changed) report_.models = std::move(models);
  }
  if (list_changed) changed_();
}

}  // namespace tessera::worker::external
