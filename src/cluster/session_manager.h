// SessionManager: the gateway's side of every session. Opens sessions on all hops of a route, starts them at
// the common cached prefix, commits tokens in order, opens them again with the next epoch when a hop preempts
// them, and queues those that no hop has room for. A state machine on injected Executor and MessageSink: no
// threads, no sockets.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/executor.h"
#include "cluster/transport.h"
#include "core/messages.h"

namespace tessera::cluster {

struct SessionRequest {
  std::vector<TokenId> prompt;
  SamplingParams params;
  std::string salt;
  int priority = 0;  // higher opens first; equal priorities open in order of arrival
};

// Hears of one session; called on the executor, one call after another; must not block.
class SessionObserver {
 public:
  virtual ~SessionObserver() = default;
  // Once, when generation begins: prompt tokens that were found in every hop's cache.
  virtual void on_started(int cached_tokens) = 0;
  // In order of position, each position once (invariant I2). The last has finish != kNone.
  virtual void on_token(const Token& token) = 0;
  // Ends the session without a final token; nothing comes after it.
  virtual void on_failed(const Status& reason) = 0;
};

// Chooses the hops of a session, e.g. from the placement and the prefix index.
class Router {
 public:
  virtual ~Router() = default;
  virtual Result<Route> choose(const SessionRequest& request) = 0;
};

// Always the same route: what `serve` and `run` use in one process.
class FixedRouter final : public Router {
 public:
  explicit FixedRouter(Route route) : route_(std::move(route)) {}
  Result<Route> choose(const SessionRequest&) override { return route_; }

 private:
  Route route_;
};

struct SessionManagerOptions {
  std::string name = "gateway";  // this inbox's name in the transport
  size_t max_waiting = 1024;     // sessions queued for room; one more is refused with ResourceExhausted
  std::chrono::milliseconds open_timeout{30'000};  // all hops must have answered Open
  std::chrono::milliseconds token_timeout{
      600'000};  // between two tokens of a running session, prefill included
  std::chrono::milliseconds wait_timeout{600'000};  // in the queue
  std::chrono::milliseconds retry_interval{50};     // while refused for want of room and nobody closes
};

struct SessionStats {
  int64_t running = 0;  // opening or generating
  int64_t waiting = 0;
  int64_t reopened = 0;  // after preemption, since start
};

// submit(), cancel(), deliver(), stats(): any thread. Everything else happens on the executor.
class SessionManager final : public Inbox {
 public:
  SessionManager(SessionManagerOptions options, MessageSink& transport, Executor& executor, Router& router);

  // ResourceExhausted when the queue is full: the caller answers 429. `first` is the epoch-independent
  // session id.
  Result<SessionId> submit(SessionRequest request, std::shared_ptr<SessionObserver> observer);
  // The observer hears nothing more (a call already running may end).
  void cancel(SessionId session);
  bool deliver(Message message) override;
  SessionStats stats() const;

 private:
  enum class State { kWaiting, kOpening, kRunning };
  struct Session {
    SessionId id = 0;
    SessionRequest request;
    std::shared_ptr<SessionObserver> observer;
    State state = State::kWaiting;
    Epoch epoch = 0;
    std::shared_ptr<const Route> route;
    std::vector<TokenId> tokens;  // prompt + committed
    std::vector<int> cached;      // per hop, -1 = no answer yet
    bool started = false;         // on_started was called
    TimerId timer = 0;
    uint64_t arrival = 0;
  };
  // Waiting order: priority descending, then arrival; a preempted session keeps its arrival and so its place.
  using WaitKey = std::pair<int64_t, uint64_t>;

  void enqueue(Session& session);
  void open_waiting();
  void open(Session& session);
  void close_hops(const Session& session);
  void arm(Session& session, std::chrono::milliseconds timeout, const char* what);
  void fail(SessionId id, const Status& reason);
  void erase(SessionId id);
  Session* current(SessionId id, Epoch epoch);
  void reopen(Session& session);
  void on_room();

  void handle(const Opened& message);
  void handle(const Refused& message);
  void handle(const Token& message);
  void handle(const Preempted& message);
  void handle(const Failed& message);

  const SessionManagerOptions options_;
  MessageSink& transport_;
  Executor& executor_;
  Router& router_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<int64_t> waiting_{0}, running_{0}, reopened_{0};

  // Executor only.
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  std::map<WaitKey, SessionId> queue_;
  bool blocked_ = false;  // the front was refused for want of room: wait for a close or the retry timer
  TimerId retry_timer_ = 0;
};

}  // namespace tessera::cluster
