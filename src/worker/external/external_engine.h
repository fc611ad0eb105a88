// ExternalEngine: another engine's server as something that completes requests: attached to by its URL, or
// run by us. Watches it, probes what it can do, streams its answers, ends what is cancelled or silent too
// long.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "core/engine_messages.h"
#include "worker/external/engine_http.h"
#include "worker/external/supervisor.h"

namespace tessera::worker::external {

struct ExternalEngineOptions {
  const EngineProfile* profile = nullptr;
  EngineAddress address;
  std::string model;                 // only this one of the engine's models; empty: all
  std::vector<std::string> command;  // runs it; empty: it runs already
  bool share_prefixes = false;       // tenants may share its prefix cache, though it cannot keep them apart
  std::chrono::milliseconds first_token{300'000};  // from a request to its first token
  std::chrono::milliseconds silence{60'000};       // and from each token to the next
  int max_streams = 256;                  // requests at a time, each on a thread of its own; more are refused
  std::chrono::milliseconds watch{1000};  // between two looks at its health and load
  std::chrono::milliseconds hung{60'000};  // a process that we run and that answers no look is killed after
  std::chrono::milliseconds first_backoff{1000};  // of starting it again
};

// Thread-safe.
class ExternalEngine {
 public:
  // `send` hands a message to the gateway (false: it is away); `changed`: report() says something new that
  // should not wait for the next heartbeat. Both from any of the engine's threads, neither may block.
  ExternalEngine(ExternalEngineOptions options, std::function<bool(EngineMessage)> send,
                 std::function<void()> changed);
  ~ExternalEngine();  // ends all requests, and the process

  void submit(EngineRequest request);  // returns at once
  void cancel(uint64_t id);
  void cancel_all();  // nobody listens any more
  void drain();       // new requests are refused; changed() comes when none is left
  EngineReport report() const;

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;
  struct Stream {
    EngineRequest request;
    std::shared_ptr<net::HttpCanceller> canceller = std::make_shared<net::HttpCanceller>();
    SteadyTime deadline;    // of the next token
    bool begun = false;     // a token has come
    bool too_late = false;  // the deadline has passed
  };
  struct Connection;  // that is kept from one request of a thread to its next

  void stream_thread();
  void run(Stream& stream, Connection& connection);
  EngineEnd answer(Stream& stream, Connection& connection, bool& miscounted);
  void finish(Stream& stream, EngineEnd end, bool miscounted);
  void check_deadlines();
  void watch();
  void look(EngineHttp& http);
  void set_state(EngineState state, std::string error);
  bool stopped_within(std::chrono::milliseconds time);
  void refuse(const EngineRequest& request, int status, std::string why);

  const ExternalEngineOptions options_;
  const EngineProfile& profile_;
  const std::function<bool(EngineMessage)> send_;
  const std::function<void()> changed_;

  mutable Mutex mutex_;
  CondVar wake_streams_;
  CondVar wake_watch_;
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  bool draining_ TESSERA_GUARDED_BY(mutex_) = false;
  bool exited_ TESSERA_GUARDED_BY(mutex_) = false;  // the process ended since the last look
  EngineReport report_ TESSERA_GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<Stream>> held_ TESSERA_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<Stream>> waiting_ TESSERA_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ TESSERA_GUARDED_BY(mutex_);
  int idle_ TESSERA_GUARDED_BY(mutex_) = 0;
  // The watch thread's own.
  int failed_looks_ = 0;
  bool was_ready_ = false;
  SteadyTime last_answer_{};
  SteadyTime listed_at_{};
  std::shared_ptr<net::HttpCanceller> watch_canceller_ = std::make_shared<net::HttpCanceller>();
  std::unique_ptr<Executor> timer_;
  std::unique_ptr<Supervisor> supervisor_;
  std::thread watch_thread_;
};

}  // namespace tessera::worker::external
