// From options to a running model: resolves the name, reads the spec, checks that it fits, loads the block
// ranges.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/open_model.h"
#include "base/executor.h"
#include "cluster/session_manager.h"
#include "obs/metrics.h"
#include "worker/engine_host.h"

namespace tessera::app {

class LocalCluster {
 public:
  static Result<std::unique_ptr<LocalCluster>> start(const ModelOptions& options, obs::Metrics* metrics);
  ~LocalCluster();

  const OpenedModel& model() const { return opened_; }
  cluster::SessionManager& sessions() { return *sessions_; }
  std::vector<std::unique_ptr<worker::EngineHost>>& workers() { return workers_; }
  int threads() const { return tensor::thread_count(*pool_); }
  // Names the numerics class of the tail: equal fingerprints give equal tokens.
  const std::string& fingerprint() const { return fingerprint_; }
  uint64_t weight_bytes() const { return weight_bytes_; }  // of all ranges, on the device
  // Returns when what the sessions were asked before is done: a cancelled one is silent from then on.
  void settle() { drain(*session_executor_); }
  // Sends one real token through every hop; calls back once, with the reason when it failed.
  void probe(std::function<void(Status)> done);

 private:
  LocalCluster() = default;

  OpenedModel opened_;
  uint64_t weight_bytes_ = 0;
  std::string fingerprint_;
  std::shared_ptr<tensor::ThreadPool> pool_;
  cluster::InProcessTransport transport_;
  std::unique_ptr<cluster::Router> router_;
  std::unique_ptr<Executor> session_executor_;  // thread "sessions"
  std::unique_ptr<cluster::SessionManager> sessions_;
  std::vector<std::unique_ptr<worker::EngineHost>> workers_;
};

}  // namespace tessera::app
