#include "cluster/session_manager.h"

#include <algorithm>

namespace tessera::cluster {

SessionManager::SessionManager(SessionManagerOptions options, MessageSink& transport, Executor& executor,
                               Router& router)
    : options_(std::move(options)), transport_(transport), executor_(executor), router_(router) {}

Result<SessionId> SessionManager::submit(SessionRequest request, std::shared_ptr<SessionObserver> observer) {
  if (request.prompt.empty()) return invalid_argument("the prompt has no tokens");
  if (waiting_.fetch_add(1) >= static_cast<int64_t>(options_.max_waiting)) {
    waiting_.fetch_sub(1);
    return resource_exhausted("too many requests are waiting (" + std::to_string(options_.max_waiting) +
                              "); try again later");
  }
  const SessionId id = next_id_.fetch_add(1);
  auto session = std::make_shared<std::unique_ptr<Session>>(std::make_unique<Session>());
  (*session)->id = id;
  (*session)->arrival = id;
  (*session)->tokens = request.prompt;
  (*session)->request = std::move(request);
  (*session)->observer = std::move(observer);
  executor_.post([this, session] {
    Session& added = **session;
    sessions_[added.id] = std::move(*session);
    enqueue(added);
    open_waiting();
  });
  return id;
}

void SessionManager::cancel(SessionId id) {
  executor_.post([this, id] {
    auto found = sessions_.find(id);
    if (found == sessions_.end()) return;
    close_hops(*found->second);
    erase(id);
    on_room();
  });
}

bool SessionManager::deliver(Message message) {
  executor_.post([this, held = std::make_shared<Message>(std::move(message))] {
    std::visit(
        [this](const auto& m) {
          if constexpr (requires { this->handle(m); }) handle(m);
        },
        *held);
  });
  return true;
}

SessionStats SessionManager::stats() const {
  return {running_.load(), waiting_.load(), reopened_.load()};
}

// --- queue
// -----------------------------------------------------------------------------------------------------------

void SessionManager::enqueue(Session& session) {
  session.state = State::kWaiting;
  queue_[{-static_cast<int64_t>(session.request.priority), session.arrival}] = session.id;
  arm(session, options_.wait_timeout, "no worker had room for the request in time");
}

void SessionManager::open_waiting() {
  while (!blocked_ && !queue_.empty()) {
    const SessionId id = queue_.begin()->second;
    queue_.erase(queue_.begin());
    open(*sessions_.at(id));
  }
}

// Something was closed: the front of the queue may fit now.
void SessionManager::on_room() {
  blocked_ = false;
  open_waiting();
}

void SessionManager::open(Session& session) {
  waiting_.fetch_sub(1);
  running_.fetch_add(1);
  session.state = State::kOpening;
  ++session.epoch;
  Result<Route> route = router_.choose(session.request);
  if (!route.ok() || route->empty()) {
    fail(session.id, route.ok() ? unavailable("no worker serves this model") : route.status());
    return;
  }
  session.route = std::make_shared<const Route>(std::move(route).value());
  session.cached.assign(session.route->size(), -1);
  arm(session, options_.open_timeout, "a worker did not answer when the request was opened");

  OpenSession message;
  message.session = session.id;
  message.epoch = session.epoch;
  message.gateway = options_.name;
  message.route = session.route;
  message.tokens = std::make_shared<const std::vector<TokenId>>(session.tokens);
  message.prompt_tokens = static_cast<int>(session.request.prompt.size());
  message.max_length = message.prompt_tokens + std::max(session.request.params.max_tokens, 0);
  message.params = session.request.params;
  // Scores of the prompt come with the first token: wanted until one is committed.
  if (session.tokens.size() > session.request.prompt.size()) message.params.prompt_logprobs = false;
  message.salt = session.request.salt;
  message.priority = session.request.priority;
  for (size_t hop = 0; hop < session.route->size(); ++hop) {
    message.hop = static_cast<int>(hop);
    transport_.send((*session.route)[hop].worker, message);
  }
}

void SessionManager::close_hops(const Session& session) {
  if (session.route == nullptr || session.state == State::kWaiting) return;
  for (const Hop& hop : *session.route) transport_.send(hop.worker, CloseSession{session.id, session.epoch});
}

// The route is given up; the session keeps its place in the queue and opens again with the next epoch.
void SessionManager::reopen(Session& session) {
  close_hops(session);
  running_.fetch_sub(1);
  waiting_.fetch_add(1);
  enqueue(session);
}

// --- lifetime
// --------------------------------------------------------------------------------------------------------

void SessionManager::arm(Session& session, std::chrono::milliseconds timeout, const char* what) {
  executor_.cancel(session.timer);
  session.timer =
      executor_.post_after(timeout, [this, id = session.id, what] { fail(id, deadline_exceeded(what)); });
}

void SessionManager::fail(SessionId id, const Status& reason) {
  auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  close_hops(*found->second);
  std::shared_ptr<SessionObserver> observer = found->second->observer;
  erase(id);
  observer->on_failed(reason);
  executor_.post([this] { on_room(); });
}

void SessionManager::erase(SessionId id) {
  auto found = sessions_.find(id);
  Session& session = *found->second;
  executor_.cancel(session.timer);
  if (session.state == State::kWaiting) {
    queue_.erase({-static_cast<int64_t>(session.request.priority), session.arrival});
    waiting_.fetch_sub(1);
  } else {
    running_.fetch_sub(1);
  }
  sessions_.erase(found);
}

SessionManager::Session* SessionManager::current(SessionId id, Epoch epoch) {
  auto found = sessions_.find(id);
  if (found == sessions_.end() || found->second->epoch != epoch || found->second->state == State::kWaiting)
    return nullptr;
  return found->second.get();
}

// --- messages
// --------------------------------------------------------------------------------------------------------

void SessionManager::handle(const Opened& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr || session->state != State::kOpening) return;
  if (message.hop < 0 || message.hop >= static_cast<int>(session->cached.size())) return;
  session->cached[static_cast<size_t>(message.hop)] = std::max(message.cached_tokens, 0);
  const int start = *std::min_element(session->cached.begin(), session->cached.end());
  if (start < 0) return;  // not all have answered
  session->state = State::kRunning;
  arm(*session, options_.token_timeout, "the model did not produce a token in time");
  if (!session->started) {
    session->started = true;
    session->observer->on_started(std::min(start, static_cast<int>(session->request.prompt.size())));
  }
  transport_.send(session->route->front().worker, StartSession{session->id, session->epoch, start});
}

void SessionManager::handle(const Refused& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr) return;
  if (message.reason.code() != Code::kResourceExhausted) {
    fail(message.session, message.reason);
    return;
  }
  reopen(*session);
  blocked_ = true;  // in order: nobody overtakes the one that waits for room
  executor_.cancel(retry_timer_);
  retry_timer_ = executor_.post_after(options_.retry_interval, [this] { on_room(); });
}

void SessionManager::handle(const Token& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr || session->state != State::kRunning) return;
  if (message.position != static_cast<int>(session->tokens.size())) return;  // repeated: already committed
  if (message.sampled.token >= 0) session->tokens.push_back(message.sampled.token);
  std::shared_ptr<SessionObserver> observer = session->observer;
  if (message.finish == FinishReason::kNone) {
    arm(*session, options_.token_timeout, "the model did not produce a token in time");
    observer->on_token(message);
    return;
  }
  close_hops(*session);
  erase(message.session);
  observer->on_token(message);
  on_room();
}

void SessionManager::handle(const Preempted& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr) return;
  reopened_.fetch_add(1);
  reopen(*session);
  blocked_ = true;  // its KV was taken because there is no room: wait until somebody closes
  executor_.cancel(retry_timer_);
  retry_timer_ = executor_.post_after(options_.retry_interval, [this] { on_room(); });
}

void SessionManager::handle(const Failed& message) {
  if (current(message.session, message.epoch) != nullptr) fail(message.session, message.reason);
}

}  // namespace tessera::cluster
