#include "api/service.h"

#include <atomic>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "api/openai_request.h"
#include "api/openai_response.h"
#include "api/tenant_salt.h"

namespace tessera::api {
namespace {

// The completer's cancel function, which may be wanted before submit() has returned it. Thread-safe.
class CancelOnce {
 public:
  void set(std::function<void()> cancel) {
    {
      MutexLock lock(mutex_);
      if (!fired_) {
        if (!closed_) cancel_ = std::move(cancel);
        return;
      }
    }
    cancel();
  }
  void fire() {
    std::function<void()> cancel;
    {
      MutexLock lock(mutex_);
      if (closed_) return;
      fired_ = true;
      cancel = std::move(cancel_);
      cancel_ = nullptr;
    }
    if (cancel) cancel();
  }
  // The completion is over: nothing is left to cancel, or to keep alive.
  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
    cancel_ = nullptr;
  }

 private:
  Mutex mutex_;
  std::function<void()> cancel_ TESSERA_GUARDED_BY(mutex_);
  bool fired_ TESSERA_GUARDED_BY(mutex_) = false;
  bool closed_ TESSERA_GUARDED_BY(mutex_) = false;
};

}  // namespace

class Job;

// Thread-safe; knows the jobs weakly.
class RunningJobs {
 public:
  void add(const std::shared_ptr<Job>& job) {
    MutexLock lock(mutex_);
    jobs_[job.get()] = job;
  }
  void remove(const Job* job) {
    MutexLock lock(mutex_);
    jobs_.erase(job);
  }
  std::vector<std::shared_ptr<Job>> all() const {
    MutexLock lock(mutex_);
    std::vector<std::shared_ptr<Job>> alive;
    for (const auto& [key, weak] : jobs_)
      if (auto job = weak.lock()) alive.push_back(std::move(job));
    return alive;
  }

 private:
  mutable Mutex mutex_;
  std::unordered_map<const Job*, std::weak_ptr<Job>> jobs_ TESSERA_GUARDED_BY(mutex_);
};

// One request under way. The completer owns it as its sink; the writer knows it weakly. The sink's calls come
// one after another; client_gone() and cut() may come meanwhile from other threads, so what they share with
// the sink's calls is guarded.
class Job final : public CompletionSink, public std::enable_shared_from_this<Job> {
 public:
  Job(const OpenAiRequest& request, int64_t created, std::shared_ptr<RunningJobs> running,
      std::shared_ptr<net::ResponseWriter> writer, std::shared_ptr<CompletionObserver> observer)
      : id_(request.completion.request_id),
        stream_(request.stream),
        n_(request.completion.n),
        choices_(request.completion.chat ? n_ : n_ * static_cast<int>(request.completion.prompts.size())),
        logprobs_(request.completion.sampling.top_logprobs >= 0),
        head_(answer_head(request, created)),
        running_(std::move(running)),
        writer_(std::move(writer)),
        observer_(std::move(observer)) {
    if (!stream_) collected_.resize(static_cast<size_t>(choices_));
  }

  ~Job() override { running_->remove(this); }

  void run(Completer& completer, CompletionRequest request) {
    running_->add(shared_from_this());
    writer_->on_client_gone([weak = weak_from_this()] {
      if (auto job = weak.lock()) job->client_gone();
    });
    cancel_.set(completer.submit(std::move(request), shared_from_this()));
  }

  void on_start(const Start& start) override {
    head_.start = start;
    if (start.prompt_tokens > 0) observer_->on_prompt(start.prompt_tokens);
    if (!stream_) return;
    MutexLock lock(head_mutex_);
    if (ended_) return;
    events_.emplace(head_, choices_, n_);
    head_sent_ = true;
    writer_->begin_stream(200, "text/event-stream",
                          {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}});
  }

  bool on_delta(const Delta& delta) override {
    if (ended_) return false;
    TESSERA_CHECK(delta.choice >= 0 && delta.choice < choices_, "a delta of a choice that nobody asked for");
    if (const auto tokens = static_cast<int>(delta.token_ids.size()) + delta.unnamed_tokens; tokens > 0)
      observer_->on_tokens(delta.choice, tokens);
    if (!stream_) {
      if (!delta.not_token_exact.empty()) head_.start.not_token_exact = delta.not_token_exact;
      collected_[static_cast<size_t>(delta.choice)].append(delta);
      return !writer_->client_gone();
    }
    const std::string events = events_->delta(delta);
    if (events.empty()) return !writer_->client_gone();
    if (writer_->write(events)) return true;
    client_gone();
    return false;
  }

  void on_done(const Usage& usage) override {
    cancel_.close();
    if (ended_.exchange(true)) return;
    if (stream_) {
      writer_->write(events_->done(usage));
      writer_->end_stream();
    } else {
      net::HttpResponse response;
      response.status = 200;
      response.content_type = "application/json";
      response.body = completion_body(head_, collected_, n_, logprobs_, usage);
      writer_->send(std::move(response));
    }
    observer_->on_end(200, usage);
  }

  void on_error(const ApiError& error) override {
    cancel_.close();
    end_with(error);
  }

  // As on_error, from any thread; the work behind the answer is cancelled. False: it had ended before.
  bool cut(const ApiError& error) {
    if (!end_with(error)) return false;
    cancel_.fire();
    return true;
  }
  const std::string& id() const { return id_; }

 private:
  bool end_with(const ApiError& error) {
    {
      MutexLock lock(head_mutex_);
      if (ended_.exchange(true)) return false;
      if (head_sent_) {
        writer_->write(StreamWriter::error(error));
        writer_->end_stream();
      } else {
        writer_->send(error_response(error));
      }
    }
    observer_->on_end(error.status, {});
    return true;
  }

  void client_gone() {
    if (ended_.exchange(true)) return;
    observer_->on_end(499, {});
    cancel_.fire();
  }

  const std::string id_;
  const bool stream_;
  const int n_;
  const int choices_;
  const bool logprobs_;
  AnswerHead head_;
  std::optional<StreamWriter> events_;  // once a stream's head is sent
  Mutex head_mutex_;                    // held while a stream's head is sent, or an error instead of more
  bool head_sent_ TESSERA_GUARDED_BY(head_mutex_) = false;
  std::vector<CollectedChoice> collected_;
  const std::shared_ptr<RunningJobs> running_;
  const std::shared_ptr<net::ResponseWriter> writer_;
  const std::shared_ptr<CompletionObserver> observer_;
  std::atomic<bool> ended_{false};  // the answer is complete, or nobody reads it
  CancelOnce cancel_;
};

namespace {

struct Accepted {
  std::shared_ptr<Completer> completer;
  OpenAiRequest request;
};

ApiResult<Accepted> accept(Endpoint endpoint, const std::string& body, const Caller& caller,
                           const ModelSet& models, CompletionObserver& observer) {
  if (!caller.may_use_type(kTextType)) return type_not_allowed(kTextType);
  const Result<Json> json = parse_json(body);
  if (!json.ok()) return error_from_status(json.status());
  auto name = requested_model(*json);
  if (auto* error = std::get_if<ApiError>(&name)) return std::move(*error);
  auto completer = models.find_for(caller, std::get<0>(name));
  if (auto* error = std::get_if<ApiError>(&completer)) return std::move(*error);
  const ModelInfo model = std::get<0>(completer)->info();
  observer.on_model(model.id);
  auto request = endpoint == Endpoint::kChatCompletions ? parse_chat_completion(*json, model)
                                                        : parse_text_completion(*json, model);
  if (auto* error = std::get_if<ApiError>(&request)) return std::move(*error);
  CompletionRequest& completion = std::get<0>(request).completion;
  completion.cache_salt = tenant_salt(caller.tenant, completion.cache_salt);
  completion.tenant = caller.tenant;
  completion.weight = caller.weight;
  // Nobody overtakes other tenants by asking for it.
  if (caller.role == Role::kClient) completion.priority = std::min(completion.priority, 0);
  return Accepted{std::get<0>(std::move(completer)), std::get<0>(std::move(request))};
}

}  // namespace

CompletionService::CompletionService(const ModelSet& models, const Clock& clock)
    : models_(models), clock_(clock), running_(std::make_shared<RunningJobs>()) {}

std::vector<std::string> CompletionService::cut_running(const ApiError& error) const {
  std::vector<std::string> ids;
  for (const auto& job : running_->all())
    if (job->cut(error)) ids.push_back(job->id());
  return ids;
}

void CompletionService::handle(Endpoint endpoint, const net::HttpRequest& request, const Caller& caller,
                               std::shared_ptr<net::ResponseWriter> writer,
                               std::shared_ptr<CompletionObserver> observer) const {
  auto accepted = accept(endpoint, request.body, caller, models_, *observer);
  if (auto* error = std::get_if<ApiError>(&accepted)) {
    writer->send(error_response(*error));
    observer->on_end(error->status, {});
    return;
  }
  auto& [completer, parsed] = std::get<Accepted>(accepted);
  parsed.completion.request_id = request.id;
  const auto job = std::make_shared<Job>(parsed, clock_.unix_time_ms() / 1000, running_, std::move(writer),
                                         std::move(observer));
  job->run(*completer, std::move(parsed.completion));
}

}  // namespace tessera::api
