// EngineHub: the other engines of the cluster as ways to complete requests, beside our own workers. Knows
// what each engine's worker reports, chooses for every request (control/engine_choice), sends it there, and
// brings the text back; before the first token a request that failed goes to another.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "api/completer.h"
#include "api/model_set.h"
#include "base/clock.h"
#include "base/executor.h"
#include "base/lru_map.h"
#include "base/mutex.h"
#include "control/circuit_breaker.h"
#include "control/engine_choice.h"
#include "control/engine_directory.h"
#include "obs/metrics.h"

namespace tessera::gateway {

class RoutedCompleter;

// What is known of an engine's worker.
struct EngineView {
  std::string worker;
  EngineReport report;
  bool draining = false;
  std::string breaker;  // "closed", "open", "trial"
  int in_flight = 0;    // requests of this gateway
  double first_token_s = 0;
  double token_s = 0;
};

// Thread-safe; its work is done on a thread of its own. `models` gets a completer for each model that is
// served in any way. All references must outlive it.
class EngineHub final : public control::EngineDirectory {
 public:
  EngineHub(api::ModelSet& models, obs::Metrics& metrics, const Clock& clock);
  ~EngineHub() override;

  // How messages reach a worker's stream; false: it is not connected. An empty function: nowhere. Waits until
  // the old one is no longer used.
  using Send = std::function<bool(const std::string& worker, const EngineMessage& message)>;
  void connect(Send send);
  // From a worker's current stream.
  void receive(const std::string& worker, EngineMessage message);
  void engine_reported(const std::string& worker, const EngineReport& report, bool draining) override;
  void engine_lost(const std::string& worker, const Status& cause, bool for_good) override;

  // A model that our own workers compute.
  void add_own(std::shared_ptr<api::Completer> completer);
  void remove_own(const std::string& model);

  // An engine serves: it has answered the probes, each with a real token.
  bool any_ready() const;
  std::vector<EngineView> view() const;
  void settle();  // returns when what was asked before is done

 private:
  friend class RoutedCompleter;
  struct Speed {  // moving averages
    double first_token_s = 0;
    double prompt_bytes = 0;
    double token_s = 0;
    double answer_tokens = 0;
    int in_flight = 0;
  };
  struct Engine {
    EngineReport report;
    bool alive = false;
    bool draining = false;
    std::string lost_because;
    control::CircuitBreaker breaker;
    double width = 4;                    // requests at once that it was seen to run with none waiting
    std::map<std::string, Speed> speed;  // by model
    int in_flight = 0;
  };
  struct Request;
  using RequestPtr = std::shared_ptr<Request>;
  class OwnSink;

  void submit(uint64_t id, const std::string& model, api::CompletionRequest request,
              std::shared_ptr<api::CompletionSink> sink);
  void cancel(uint64_t id);
  void try_next(const RequestPtr& request);
  bool send_to_engine(const RequestPtr& request, const std::string& worker);
  void send_to_own(const RequestPtr& request, std::shared_ptr<api::Completer> own);
  std::vector<control::EngineOption> options_of(const Request& request, std::vector<std::string>& targets);
  void on(const std::string& worker, const EngineDelta& delta);
  void on(const std::string& worker, const EngineEnd& end);
  void attempt_failed(const RequestPtr& request, const api::ApiError& error, bool engine_fault);
  void end_attempt(Request& request);
  void finish(const RequestPtr& request, const char* result);
  void note_token(Request& request, int tokens);
  void begin_answer(Request& request);
  Speed& speed_of(const std::string& target, const std::string& model);
  void lose_requests(const std::string& worker, const std::string& why);
  void publish(const std::string& model);
  void measure(const std::string& worker, const Engine& engine);
  void refresh_view();
  double held_share(const Request& request, const std::string& target) const;
  void remember_prefix(const Request& request);

  api::ModelSet& models_;
  obs::Metrics& metrics_;
  const Clock& clock_;
  // The executor's only.
  std::map<std::string, Engine> engines_;  // by worker
  std::map<std::string, std::shared_ptr<api::Completer>> own_;
  std::map<std::string, Speed> own_speed_;
  std::map<std::string, std::shared_ptr<RoutedCompleter>> published_;
  std::unordered_map<uint64_t, RequestPtr> requests_;
  // Which targets a prompt's beginnings went to; most recently used first.
  LruMap<size_t, std::set<std::string>> prefixes_{8192};
  std::atomic<uint64_t> last_id_;
  mutable Mutex mutex_;
  Send send_ TESSERA_GUARDED_BY(mutex_);
  std::vector<EngineView> view_ TESSERA_GUARDED_BY(mutex_);
  std::unique_ptr<Executor> executor_;  // thread "engines"
};

}  // namespace tessera::gateway
