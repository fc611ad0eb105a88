#include "cluster/session_manager.h"

#include <algorithm>

#include "base/rng.h"

namespace tessera::cluster {
namespace {

const SystemClock kSystemClock;
constexpr std::chrono::milliseconds kFirstRetry{25}, kLongestRetry{2000};
// Of an answer whose length nobody knows yet: what its tenant is charged beside the prompt, at most.
constexpr int64_t kExpectedOutput = 256;

}  // namespace

SessionManager::SessionManager(SessionManagerOptions options, MessageSink& transport, Executor& executor,
                               Router& router)
    : options_(std::move(options)),
      transport_(transport),
      executor_(executor),
      router_(router),
      clock_(options_.clock != nullptr ? *options_.clock : kSystemClock),
      next_id_(options_.first_id) {}

Result<SessionId> SessionManager::submit(SessionRequest request, std::shared_ptr<SessionObserver> observer) {
  if (request.prompt.empty()) return invalid_argument("the prompt has no tokens");
  if (waiting_.fetch_add(1) >= static_cast<int64_t>(options_.max_waiting) && !request.of_begun_answer()) {
    waiting_.fetch_sub(1);
    return resource_exhausted("too many requests are waiting (" + std::to_string(options_.max_waiting) +
                              "); try again later");
  }
  if (!count_waiting(request.tenant, 1) && !request.of_begun_answer()) {
    waiting_.fetch_sub(1);
    count_waiting(request.tenant, -1);
    return resource_exhausted("too many requests of this tenant are waiting; try again later");
  }
  const SessionId id = next_id_.fetch_add(1);
  auto session = std::make_shared<std::unique_ptr<Session>>(std::make_unique<Session>());
  (*session)->id = id;
  (*session)->arrival = id;
  (*session)->ticket = system_entropy();
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
  executor_.post([this, held = std::make_shared<Message>(std::move(message))] { dispatch(*held); });
  return true;
}

void SessionManager::deliver_from(const std::string& worker, Message message) {
  executor_.post([this, worker, held = std::make_shared<Message>(std::move(message))] {
    auto found = sessions_.find(session_of(*held));
    if (found == sessions_.end() || found->second->route == nullptr) return;
    const Route& route = *found->second->route;
    int hop = -1;
    if (const auto* opened = std::get_if<Opened>(held.get())) hop = opened->hop;
    if (const auto* refused = std::get_if<Refused>(held.get())) hop = refused->hop;
    if (const auto* preempted = std::get_if<Preempted>(held.get())) hop = preempted->hop;
    if (const auto* traced = std::get_if<StepTrace>(held.get())) hop = traced->hop;
    if (std::holds_alternative<Token>(*held)) hop = static_cast<int>(route.size()) - 1;
    const bool known =
        hop >= 0 && hop < static_cast<int>(route.size())
            ? is_on(route[static_cast<size_t>(hop)], worker)
            : std::any_of(route.begin(), route.end(), [&](const Hop& h) { return is_on(h, worker); });
    if (known) dispatch(*held);
  });
}

SessionStats SessionManager::stats() const {
  return {running_.load(),   waiting_.load(), reopened_.load(),
          failovers_.load(), broken_.load(),  tokens_.load()};
}

// --- queue
// -----------------------------------------------------------------------------------------------------------

void SessionManager::enqueue(Session& session) {
  session.state = State::kWaiting;
  if (session.place == 0) {
    const int64_t output = std::min<int64_t>(session.request.params.max_tokens, kExpectedOutput);
    session.place =
        fair_.take_place(session.request.tenant, static_cast<int64_t>(session.request.prompt.size()) + output,
                         session.request.weight);
  }
  queue_[wait_key(session)] = session.id;
  arm(session, options_.wait_timeout, "no worker had room for the request in time");
}

// However much one tenant asks, others find room to wait in.
bool SessionManager::count_waiting(const std::string& tenant, int by) {
  if (tenant.empty()) return true;
  MutexLock lock(waiting_mutex_);
  int64_t& count = waiting_of_[tenant];
  count += by;
  const bool fits = count <= static_cast<int64_t>(options_.max_waiting - options_.max_waiting / 4);
  if (count == 0) waiting_of_.erase(tenant);
  return fits;
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
  count_waiting(session.request.tenant, -1);
  fair_.serve(session.place);
  running_.fetch_add(1);
  find_route(session);
}

RouteQuery SessionManager::query_of(const Session& session, std::string leaving) const {
  return {session.request,
          session.tokens,
          static_cast<int>(session.request.prompt.size()) + std::max(session.request.params.max_tokens, 0),
          session.route.get(),
          session.broken.ok() ? nullptr : &session.broken,
          std::move(leaving),
          session.broken.ok() ? std::string() : session.failed};
}

// Opens the session on the router's choice; without one it is broken and waits, or ends.
void SessionManager::find_route(Session& session) {
  Result<RouteChoice> choice = router_.choose(query_of(session));
  if (choice.ok() && choice->route.empty()) choice = unavailable("no worker serves this model");
  if (choice.ok()) {
    take_route(session, std::move(choice).value());
    return;
  }
  const bool may_wait = session.epoch > 0 || session.request.of_begun_answer() || options_.wait_for_route;
  if (session.state == State::kWaiting) session.state = State::kOpening;  // the queue counts it no more
  if (choice.status().code() != Code::kUnavailable || !may_wait || options_.failover_timeout.count() == 0) {
    fail(session.id, choice.status());
    return;
  }
  park(session);
  if (session.routeless_since == MonotonicTime{}) session.routeless_since = clock_.now();
  const auto left = options_.failover_timeout - (clock_.now() - session.routeless_since);
  session.timer =
      executor_.post_after(std::max<std::chrono::nanoseconds>(left, std::chrono::nanoseconds(0)),
                           [this, id = session.id, reason = choice.status()] { fail(id, reason); });
}

void SessionManager::take_route(Session& session, RouteChoice choice) {
  if (session.state == State::kBroken) broken_.fetch_sub(1);
  session.routeless_since = {};
  if (session.route != nullptr && session.state != State::kWaiting)
    for (const Hop& hop : *session.route)
      if (std::find(choice.route.begin(), choice.route.end(), hop) == choice.route.end())
        close_hop(session, hop);
  session.route = std::make_shared<const Route>(std::move(choice.route));
  if (!choice.inexact.empty() && choice.inexact != session.inexact) {
    session.inexact = choice.inexact;
    session.observer->on_inexact(session.inexact);
  }
  send_open(session);
}

void SessionManager::send_open(Session& session) {
  session.state = State::kOpening;
  ++session.epoch;
  end_trace(session, unavailable("the session took another route meanwhile"));
  session.hops.assign(session.route->size(), HopState{-1, 0});
  executor_.cancel(session.timer);
  session.timer =
      executor_.post_after(options_.open_timeout, [this, id = session.id] { on_open_timeout(id); });

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
  message.ticket = session.ticket;
  for (size_t hop = 0; hop < session.route->size(); ++hop) {
    message.hop = static_cast<int>(hop);
    transport_.send((*session.route)[hop].worker, message);
  }
}

void SessionManager::on_open_timeout(SessionId id) {
  auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  Session& session = *found->second;
  for (size_t hop = 0; hop < session.hops.size(); ++hop)
    if (session.hops[hop].cached < 0) {
      break_route(session, (*session.route)[hop].worker,
                  deadline_exceeded("a worker did not answer when the request was opened"));
      return;
    }
}

void SessionManager::close_hops(const Session& session) {
  if (session.route == nullptr || session.state == State::kWaiting) return;
  for (const Hop& hop : *session.route) close_hop(session, hop);
}

void SessionManager::close_hop(const Session& session, const Hop& hop) {
  const CloseSession close{session.id, session.epoch};
  transport_.send(hop.worker, close);
  // The way to a worker that failed may have taken it and lost it without a word.
  if (!session.broken.ok() && is_on(hop, std::string(process_of(session.failed))))
    close_again(hop.worker, close, 0);
}

// A worker that was out of reach when its session ended would hold it for ever: it is told again, for longer
// than a worker without its gateway keeps sessions by itself, and once more when it comes back. Closing twice
// does no harm.
void SessionManager::close_again(const std::string& inbox, const CloseSession& close, int tries) {
  constexpr int kTries = 8;  // after 1, 3, 7, … 255 s
  constexpr size_t kRemembered = 65536;
  const std::pair<std::string, SessionId> key(inbox, close.session);
  if (tries == 0) {
    auto [entry, added] = unclosed_.try_emplace(key);
    entry->second.epoch = std::max(entry->second.epoch, close.epoch);
    if (!added && !entry->second.waits_for_worker) return;
    entry->second.waits_for_worker = false;
    if (unclosed_.size() > kRemembered)
      unclosed_.erase(unclosed_.begin()->first == key ? std::next(entry) : unclosed_.begin());
  } else {
    auto entry = unclosed_.find(key);
    if (entry == unclosed_.end()) return;
    transport_.send(inbox, CloseSession{close.session, entry->second.epoch});
    entry->second.waits_for_worker = tries == kTries;
    if (tries == kTries) return;
  }
  executor_.post_after(std::chrono::seconds(1 << tries),
                       [this, inbox, close, tries] { close_again(inbox, close, tries + 1); });
}

void SessionManager::worker_back(const std::string& worker) {
  executor_.post([this, worker] {
    for (auto it = unclosed_.lower_bound({worker, 0});
         it != unclosed_.end() && it->first.first.starts_with(worker);) {
      const auto& [inbox, session] = it->first;
      const bool its_own = process_of(inbox) == worker;
      if (its_own) transport_.send(inbox, CloseSession{session, it->second.epoch});
      it = its_own && it->second.waits_for_worker ? unclosed_.erase(it) : std::next(it);
    }
  });
}

// The route is given up; the session keeps its place in the queue and opens again with the next epoch.
void SessionManager::reopen(Session& session) {
  close_hops(session);
  if (session.state == State::kBroken) broken_.fetch_sub(1);
  running_.fetch_sub(1);
  waiting_.fetch_add(1);
  count_waiting(session.request.tenant, 1);
  enqueue(session);
}

// In order: nobody overtakes the one that waits for room.
void SessionManager::wait_for_room() {
  blocked_ = true;
  executor_.cancel(retry_timer_);
  retry_timer_ = executor_.post_after(options_.retry_interval, [this] { on_room(); });
}

// --- failover
// --------------------------------------------------------------------------------------------------------

bool SessionManager::is_on(const Hop& hop, const std::string& worker) {
  return hop.worker.starts_with(worker) &&
         (hop.worker.size() == worker.size() || hop.worker[worker.size()] == '/');
}

void SessionManager::worker_lost(const std::string& worker, Status cause) {
  executor_.post([this, worker, cause = std::move(cause)] {
    std::vector<std::pair<SessionId, std::string>> hit;
    for (const auto& [id, session] : sessions_) {
      if (session->route == nullptr || session->state == State::kWaiting) continue;
      for (const Hop& hop : *session->route)
        if (is_on(hop, worker)) {
          hit.emplace_back(id, hop.worker);
          break;
        }
    }
    std::sort(hit.begin(), hit.end());  // oldest first, whatever the hash
    for (const auto& [id, inbox] : hit)
      if (auto found = sessions_.find(id); found != sessions_.end())
        break_route(*found->second, inbox, cause);
  });
}

void SessionManager::move_away(const std::string& worker) {
  executor_.post([this, worker] {
    std::vector<SessionId> hit;
    for (const auto& [id, session] : sessions_)
      if (session->state == State::kOpening || session->state == State::kRunning)
        if (std::any_of(session->route->begin(), session->route->end(),
                        [&](const Hop& hop) { return is_on(hop, worker); }))
          hit.push_back(id);
    std::sort(hit.begin(), hit.end());
    for (SessionId id : hit)
      if (auto found = sessions_.find(id); found != sessions_.end())
        if (Result<RouteChoice> choice = router_.choose(query_of(*found->second, worker)); choice.ok())
          take_route(*found->second, std::move(choice).value());
  });
}

void SessionManager::routes_changed() {
  executor_.post([this] {
    if (broken_.load() == 0) return;  // nearly always: not a look at every session for every change
    std::vector<SessionId> broken;
    for (const auto& [id, session] : sessions_)
      if (session->state == State::kBroken) broken.push_back(id);
    std::sort(broken.begin(), broken.end());
    for (SessionId id : broken)
      if (auto found = sessions_.find(id); found != sessions_.end()) find_route(*found->second);
  });
}

void SessionManager::break_route(Session& session, const std::string& inbox, const Status& cause) {
  router_.on_hop_failed(inbox, cause);
  if (session.failovers == 0) {
    session.broken_since = clock_.now();
    session.failover = {session.id,
                        inbox,
                        cause.message(),
                        clock_.unix_time_ms(),
                        static_cast<int>(session.tokens.size() - session.request.prompt.size()),
                        {},
                        false};
  }
  const bool again = session.failovers > 0 && session.failed == inbox;
  session.broken = cause.with_context("worker " + inbox + " was lost");
  session.failed = inbox;
  if (session.state == State::kRunning) ++session.strikes;
  const bool too_long = clock_.now() - session.broken_since >= options_.failover_timeout;
  if (session.strikes > options_.max_failovers ||
      (++session.failovers > options_.max_failovers && too_long)) {
    fail(session.id, session.broken);
    return;
  }
  failovers_.fetch_add(1);
  if (!again || options_.failover_timeout.count() == 0) {
    find_route(session);
    return;
  }
  // No better hop was known than the one that failed just before: it gets a moment, longer each time.
  const auto delay = std::min(kFirstRetry * (1 << std::min(session.failovers, 10)), kLongestRetry);
  park(session);
  session.timer = executor_.post_after(delay, [this, id = session.id] {
    if (auto found = sessions_.find(id); found != sessions_.end()) find_route(*found->second);
  });
}

// Without a route for now; the caller sets the timer that ends that.
void SessionManager::park(Session& session) {
  executor_.cancel(session.timer);
  if (session.state == State::kBroken) return;
  session.state = State::kBroken;
  broken_.fetch_add(1);
}

void SessionManager::report_failover(Session& session, bool recovered) {
  if (session.failovers == 0) return;
  session.failovers = 0;
  session.strikes = 0;
  session.broken = Status();
  session.failover.stall =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock_.now() - session.broken_since);
  session.failover.recovered = recovered;
  if (options_.on_failover) options_.on_failover(session.failover);
}

// --- lifetime
// --------------------------------------------------------------------------------------------------------

void SessionManager::arm(Session& session, std::chrono::milliseconds timeout, const char* what) {
  executor_.cancel(session.timer);
  session.timer =
      executor_.post_after(timeout, [this, id = session.id, what] { fail(id, deadline_exceeded(what)); });
}

void SessionManager::fail(SessionId id, Status reason) {
  auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  close_hops(*found->second);
  report_failover(*found->second, false);
  std::shared_ptr<SessionObserver> observer = found->second->observer;
  erase(id);
  observer->on_failed(reason);
  executor_.post([this] { on_room(); });
}

void SessionManager::erase(SessionId id) {
  auto found = sessions_.find(id);
  Session& session = *found->second;
  executor_.cancel(session.timer);
  end_trace(session, unavailable("the session ended before a step was seen whole"));
  if (session.state == State::kWaiting) {
    queue_.erase(wait_key(session));
    waiting_.fetch_sub(1);
    count_waiting(session.request.tenant, -1);
  } else {
    running_.fetch_sub(1);
    if (session.state == State::kBroken) broken_.fetch_sub(1);
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

void SessionManager::dispatch(const Message& message) {
  std::visit(
      [this](const auto& m) {
        if constexpr (requires { this->handle(m); }) handle(m);
      },
      message);
}

void SessionManager::handle(const Opened& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr || session->state != State::kOpening) return;
  if (message.hop < 0 || message.hop >= static_cast<int>(session->hops.size())) return;
  session->hops[static_cast<size_t>(message.hop)] = {std::max(message.cached_tokens, 0),
                                                     std::max(message.outputs_from, 0)};
  const bool all = std::all_of(session->hops.begin(), session->hops.end(),
                               [](const HopState& hop) { return hop.cached >= 0; });
  if (all) start_hops(*session);
}

void SessionManager::start_hops(Session& session) {
  const std::vector<HopStart> starts = plan_starts(session.hops, static_cast<int>(session.tokens.size()));
  session.state = State::kRunning;
  arm(session, options_.token_timeout, "the model did not produce a token in time");
  if (!session.started) {
    session.started = true;
    int reused = static_cast<int>(session.request.prompt.size());
    for (const HopStart& hop : starts) reused = std::min(reused, hop.start);
    session.observer->on_started(reused);
  }
  for (size_t hop = 0; hop < starts.size(); ++hop)
    transport_.send((*session.route)[hop].worker,
                    StartSession{session.id, session.epoch, starts[hop].start, starts[hop].send_from});
}

void SessionManager::handle(const Refused& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr || session->state == State::kBroken) return;
  if (message.reason.code() == Code::kResourceExhausted) {
    reopen(*session);
    wait_for_room();
  } else if (message.reason.code() == Code::kUnavailable && message.hop >= 0 &&
             message.hop < static_cast<int>(session->route->size())) {
    break_route(*session, (*session->route)[static_cast<size_t>(message.hop)].worker, message.reason);
  } else {
    fail(message.session, message.reason);
  }
}

void SessionManager::handle(const Token& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr || session->state == State::kOpening || message.ticket != session->ticket) return;
  if (message.position != static_cast<int>(session->tokens.size())) return;  // repeated: already committed
  if (message.sampled.token >= 0) {
    session->tokens.push_back(message.sampled.token);
    tokens_.fetch_add(1, std::memory_order_relaxed);
  }
  if (session->trace != nullptr) {
    session->trace->token(message.position, clock_.now());
    if (session->trace->complete()) end_trace(*session, {});
  }
  std::shared_ptr<SessionObserver> observer = session->observer;
  // A token that was on its way when the route broke is good, but does not mend the route.
  if (session->state == State::kRunning || message.finish != FinishReason::kNone)
    report_failover(*session, true);
  if (message.finish == FinishReason::kNone) {
    if (session->state == State::kRunning)
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
  if (session == nullptr || session->state == State::kBroken) return;
  reopened_.fetch_add(1);
  reopen(*session);
  wait_for_room();  // its KV was taken because there is no room: wait until somebody closes
}

void SessionManager::handle(const Failed& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr && !message.peer.empty())
    close_again(message.peer, CloseSession{message.session, message.epoch}, 0);
  if (session == nullptr || session->state == State::kBroken) return;
  if (message.reason.code() != Code::kUnavailable) {
    fail(message.session, message.reason);
    return;
  }
  const auto hop = static_cast<size_t>(std::max(message.hop, 0));
  const std::string inbox = !message.peer.empty()          ? message.peer
                            : hop < session->route->size() ? (*session->route)[hop].worker
                                                           : std::string();
  break_route(*session, inbox, message.reason);
}

// --- what people ask for
// --------------------------------------------------------------------------------------------------------

void SessionManager::list(size_t most, std::function<void(std::vector<SessionView>)> done) {
  executor_.post([this, most, done = std::move(done)] {
    std::vector<SessionId> ids;
    ids.reserve(sessions_.size());
    for (const auto& [id, session] : sessions_) ids.push_back(id);
    std::sort(ids.begin(), ids.end());
    if (ids.size() > most) ids.resize(most);
    std::vector<SessionView> views;
    for (SessionId id : ids) {
      constexpr const char* kStates[] = {"waiting", "opening", "running", "broken"};
      const Session& session = *sessions_.at(id);
      SessionView view{id,
                       kStates[static_cast<size_t>(session.state)],
                       static_cast<int>(session.request.prompt.size()),
                       static_cast<int>(session.tokens.size() - session.request.prompt.size()),
                       {}};
      if (session.route != nullptr && session.state != State::kWaiting)
        for (const Hop& hop : *session.route) view.route.push_back(hop.worker);
      views.push_back(std::move(view));
    }
    done(std::move(views));
  });
}

void SessionManager::trace(SessionId id, int steps, TraceCollector::Done done) {
  executor_.post([this, id, steps, done = std::move(done)] {
    constexpr std::chrono::seconds kPatience{30};
    auto found = sessions_.find(id);
    if (found == sessions_.end() || found->second->state != State::kRunning)
      return done(Status(Code::kNotFound, "no such session runs"));
    Session& session = *found->second;
    if (session.trace != nullptr) return done(resource_exhausted("the session is being traced already"));
    if (steps < 1 || steps > kMostTracedSteps)
      return done(invalid_argument("a trace is of 1 to " + std::to_string(kMostTracedSteps) + " steps"));
    session.trace = std::make_unique<TraceCollector>(id, session.route, steps, done);
    for (const Hop& hop : *session.route)
      transport_.send(hop.worker, TraceSteps{id, session.epoch, steps + kTraceSlack});
    session.trace_timer = executor_.post_after(kPatience, [this, id] {
      if (auto late = sessions_.find(id); late != sessions_.end())
        end_trace(*late->second, deadline_exceeded("no step was seen whole in time"));
    });
  });
}

void SessionManager::handle(const StepTrace& message) {
  Session* session = current(message.session, message.epoch);
  if (session == nullptr || session->trace == nullptr) return;
  session->trace->add(message);
  if (session->trace->complete()) end_trace(*session, {});
}

void SessionManager::end_trace(Session& session, const Status& why_none) {
  if (session.trace == nullptr) return;
  executor_.cancel(session.trace_timer);
  std::exchange(session.trace, nullptr)->finish(why_none);
}

}  // namespace tessera::cluster
