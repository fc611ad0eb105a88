// SessionManager: the gateway's side of every session. Opens sessions on all hops of a route, starts each hop
// where its cache ends, commits tokens in order, opens them again with the next epoch when a hop preempts
// them or dies, and queues those that no hop has room for. A state machine on injected Executor and
// MessageSink: no threads, no sockets.
//
// Failover: a session whose route broke keeps its committed tokens and asks the Router for another route.
// Hops that are on both routes keep what they hold, a substitute is fed from its predecessor's kept outputs
// (cluster/replay.h). Without a route it waits, up to a limit.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "cluster/fair_share.h"
#include "cluster/replay.h"
#include "cluster/session_trace.h"
#include "cluster/transport.h"
#include "core/messages.h"

namespace tessera::cluster {

struct SessionRequest {
  std::vector<TokenId> prompt;
  SamplingParams params;
  std::string salt;
  // Higher opens first; equal priorities take turns by tenant, one tenant's in order of arrival.
  int priority = 0;
  std::string tenant = {};
  int64_t weight = 1;  // the tenant's share where tenants wait for each other
  // Shared by the sessions of one answer; true once its client has heard of it, then all of them wait for
  // room and for a route as a session does whose route broke: a refusal would end what has been heard. Null:
  // the session is an answer of its own.
  std::shared_ptr<const std::atomic<bool>> answer_begun = {};

  bool of_begun_answer() const { return answer_begun != nullptr && answer_begun->load(); }
};

// Hears of one session; called on the executor, one call after another; must not block.
class SessionObserver {
 public:
  virtual ~SessionObserver() = default;
  // Once, when generation begins: prompt tokens that were found in every hop's cache.
  virtual void on_started(int cached_tokens) = 0;
  // The rest of the answer may differ from what one undisturbed machine would give: a lossy encoding on a
  // link, a substitute of another numerics class. At most once for each reason.
  virtual void on_inexact(const std::string& /*reason*/) {}
  // In order of position, each position once (invariant I2). The last has finish != kNone.
  virtual void on_token(const Token& token) = 0;
  // Ends the session without a final token; nothing comes after it.
  virtual void on_failed(const Status& reason) = 0;
};

struct RouteQuery {
  const SessionRequest& request;
  std::span<const TokenId> tokens;  // prompt and committed output
  int max_length = 0;               // KV room, in tokens, that every hop must have in the end
  const Route* previous = nullptr;  // of the epoch before: hops that live should stay
  const Status* broken = nullptr;   // why `previous` is given up; null when a hop only ran out of room
  std::string leaving;  // move_away(): a worker or inbox that must not be on the route, though it lives
  std::string failed;   // the inbox that broke `previous`: a last resort, though it may look well
};
struct RouteChoice {
  Route route;
  std::string inexact;  // why tokens may differ from those of the routes before; empty: they cannot
};

// Chooses the hops of a session, e.g. from the placement and the prefix index. Called on the sessions'
// executor.
class Router {
 public:
  virtual ~Router() = default;
  // Unavailable: no route now; SessionManager::routes_changed() says when to ask again.
  virtual Result<RouteChoice> choose(const RouteQuery& query) = 0;
  // A session found that this inbox does not answer or cannot be reached.
  virtual void on_hop_failed(const std::string& /*inbox*/, const Status& /*cause*/) {}
};

// Always the same route: what `serve` and `run` use in one process. There is no other when it breaks.
class FixedRouter final : public Router {
 public:
  explicit FixedRouter(Route route) : route_(std::move(route)) {}
  Result<RouteChoice> choose(const RouteQuery& query) override {
    if (query.broken != nullptr) return *query.broken;
    return RouteChoice{route_, {}};
  }

 private:
  Route route_;
};

// One session that went on elsewhere, or ended for want of an elsewhere.
struct Failover {
  SessionId session = 0;
  std::string inbox;  // the hop that failed
  std::string cause;
  int64_t unix_time_ms = 0;
  int committed_tokens = 0;           // of output, when it happened
  std::chrono::milliseconds stall{};  // from noticing to the next token
  bool recovered = false;
};

struct SessionManagerOptions {
  std::string name = "gateway";  // this inbox's name in the transport
  size_t max_waiting = 1024;     // sessions queued for room; one more is refused with ResourceExhausted
  std::chrono::milliseconds open_timeout{30'000};  // all hops must have answered Open
  std::chrono::milliseconds token_timeout{
      600'000};  // between two tokens of a running session, prefill included
  std::chrono::milliseconds wait_timeout{600'000};     // in the queue
  std::chrono::milliseconds retry_interval{50};        // while refused for want of room and nobody closes
  std::chrono::milliseconds failover_timeout{60'000};  // without any route
  // Without a token between them: of hops that broke while the session ran on them, then the fault moves with
  // the session; of those that broke before, once failover_timeout has passed as well.
  int max_failovers = 16;
  SessionId first_id = 1;       // several gateways share workers: each begins at its own random number
  bool wait_for_route = false;  // new sessions wait failover_timeout for a route too, else they fail at once
  std::function<void(const Failover&)> on_failover;  // on the executor
  const Clock* clock = nullptr;                      // null: the system's
};

struct SessionStats {
  int64_t running = 0;  // opening or generating
  int64_t waiting = 0;
  int64_t reopened = 0;   // after preemption, since start
  int64_t failovers = 0;  // since start
  int64_t broken = 0;     // of running: waiting for a route
  int64_t tokens = 0;     // committed since start
};

// A session as people see it.
struct SessionView {
  SessionId id = 0;
  std::string state;  // "waiting", "opening", "running", "broken"
  int prompt_tokens = 0;
  int output_tokens = 0;           // committed
  std::vector<std::string> route;  // inboxes; empty while it waits
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
  // The same, from a worker whose name its certificate proves: what it says of a session counts only where
  // the session's route leads over it.
  void deliver_from(const std::string& worker, Message message);
  // A worker process is gone: its sessions move at once.
  void worker_lost(const std::string& worker, Status cause);
  // It has joined again: it hears of the sessions that ended while it was out of reach.
  void worker_back(const std::string& worker);
  // The router no longer offers this worker (drain, unloading): its sessions move while it still answers, so
  // that nothing is computed twice that its neighbours do not need.
  void move_away(const std::string& worker);
  // Sessions without a route ask the router again.
  void routes_changed();
  SessionStats stats() const;
  // Up to `most` sessions in order of id. `done` is called on the executor.
  void list(size_t most, std::function<void(std::vector<SessionView>)> done);
  // Where the time of the session's next `steps` (1 to kMostTracedSteps) decode steps goes. `done` is called
  // once, on the executor: NotFound if no such session runs, ResourceExhausted if it is traced already; what
  // was seen when it ends, moves or takes too long.
  static constexpr int kMostTracedSteps = 256;
  void trace(SessionId session, int steps, TraceCollector::Done done);

 private:
  enum class State { kWaiting, kOpening, kRunning, kBroken };
  struct Session {
    SessionId id = 0;
    SessionRequest request;
    std::shared_ptr<SessionObserver> observer;
    State state = State::kWaiting;
    Epoch epoch = 0;
    std::shared_ptr<const Route> route;
    std::vector<TokenId> tokens;  // prompt + committed
    std::vector<HopState> hops;   // what they answered to Open; cached -1 = no answer yet
    bool started = false;         // on_started was called
    uint64_t ticket = 0;
    Status broken;       // kBroken, and until the next token: why the route before was given up
    std::string failed;  // likewise: the inbox that broke it
    Failover failover;   // the first since the last token
    MonotonicTime broken_since{};
    MonotonicTime routeless_since{};  // the router knows no route; zero: it does
    int failovers = 0;                // since the last token
    int strikes = 0;                  // those of them that met it running
    std::string inexact;              // the last reason that the observer heard
    TimerId timer = 0;
    uint64_t arrival = 0;
    FairShare::Place place = 0;             // taken when it is queued first
    std::unique_ptr<TraceCollector> trace;  // while one is made
    TimerId trace_timer = 0;
  };
  // Waiting order: priority descending, then the tenants' turns, then arrival; a preempted session keeps its
  // place.
  using WaitKey = std::tuple<int64_t, FairShare::Place, uint64_t>;
  static WaitKey wait_key(const Session& session) {
    return {-static_cast<int64_t>(session.request.priority), session.place, session.arrival};
  }
  // Counts a session that begins (1) or ceases (-1) to wait. False: its tenant has no more room to wait in.
  bool count_waiting(const std::string& tenant, int by);

  void enqueue(Session& session);
  void open_waiting();
  void open(Session& session);
  RouteQuery query_of(const Session& session, std::string leaving = {}) const;
  void find_route(Session& session);
  void take_route(Session& session, RouteChoice choice);
  void send_open(Session& session);
  void start_hops(Session& session);
  void close_hops(const Session& session);
  void close_hop(const Session& session, const Hop& hop);
  void close_again(const std::string& inbox, const CloseSession& close, int tries);
  void park(Session& session);
  void break_route(Session& session, const std::string& inbox, const Status& cause);
  void report_failover(Session& session, bool recovered);
  void on_open_timeout(SessionId id);
  void wait_for_room();
  static bool is_on(const Hop& hop, const std::string& worker);
  void arm(Session& session, std::chrono::milliseconds timeout, const char* what);
  void fail(SessionId id, Status reason);  // a copy: the session that holds it may go
  void erase(SessionId id);
  Session* current(SessionId id, Epoch epoch);
  void end_trace(Session& session, const Status& why_none);
  void reopen(Session& session);
  void on_room();

  void dispatch(const Message& message);
  void handle(const Opened& message);
  void handle(const Refused& message);
  void handle(const Token& message);
  void handle(const Preempted& message);
  void handle(const Failed& message);
  void handle(const StepTrace& message);

  const SessionManagerOptions options_;
  MessageSink& transport_;
  Executor& executor_;
  Router& router_;
  const Clock& clock_;
  std::atomic<uint64_t> next_id_;
  std::atomic<int64_t> waiting_{0}, running_{0}, reopened_{0}, failovers_{0}, broken_{0}, tokens_{0};

  Mutex waiting_mutex_;
  std::map<std::string, int64_t> waiting_of_ TESSERA_GUARDED_BY(waiting_mutex_);  // by tenant, with a name

  // Executor only.
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  std::map<WaitKey, SessionId> queue_;
  FairShare fair_;
  struct Unclosed {
    Epoch epoch = 0;
    bool waits_for_worker = false;  // told often enough; once more when it comes back
  };
  std::map<std::pair<std::string, SessionId>, Unclosed> unclosed_;  // by inbox: CloseSession may be lost
  bool blocked_ = false;  // the front was refused for want of room: wait for a close or the retry timer
  TimerId retry_timer_ = 0;
};

}  // namespace tessera::cluster
