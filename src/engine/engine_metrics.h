// EngineMetrics: an engine's numbers as Prometheus metrics.
#pragma once

#include <optional>
#include <string>

#include "engine/engine.h"
#include "obs/metrics.h"

namespace tessera::engine {

// One thread. Counters are fed with differences between two snapshots.
class EngineMetrics {
 public:
  EngineMetrics(obs::Metrics& metrics, const std::string& model, const std::string& worker);
  void update(const EngineStats& stats);
  void observe_step(double seconds) { step_seconds_.observe(seconds); }

 private:
  obs::Gauge& free_;
  obs::Gauge& cached_;
  obs::Gauge& used_;
  obs::Gauge& capacity_;
  obs::Gauge& running_;
  obs::Gauge& batch_rows_;
  obs::Counter& prefill_tokens_;
  obs::Counter& decode_tokens_;
  obs::Counter& hit_tokens_;
  obs::Counter& query_tokens_;
  obs::Counter& preemptions_;
  obs::Histogram& step_seconds_;
  EngineStats last_;
};

}  // namespace tessera::engine
