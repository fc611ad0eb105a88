#include "engine/engine_metrics.h"

namespace tessera::engine {
namespace {

obs::Labels labels(const std::string& model, const std::string& worker, const char* key = nullptr,
                   const char* value = nullptr) {
  obs::Labels all{{"model", model}, {"worker_id", worker}, {"worker_role", "hybrid"}};
  if (key != nullptr) all[key] = value;
  return all;
}

constexpr const char* kBlocksHelp = "KV pages by state; the states add up to tessera_kv_blocks_capacity";
constexpr const char* kTokensHelp = "Tokens computed, by phase";

}  // namespace

EngineMetrics::EngineMetrics(obs::Metrics& metrics, const std::string& model, const std::string& worker)
    : free_(metrics.gauge("tessera_kv_blocks", kBlocksHelp, labels(model, worker, "state", "free"))),
      cached_(metrics.gauge("tessera_kv_blocks", kBlocksHelp, labels(model, worker, "state", "cached"))),
      used_(metrics.gauge("tessera_kv_blocks", kBlocksHelp, labels(model, worker, "state", "used"))),
      capacity_(metrics.gauge("tessera_kv_blocks_capacity", "KV pages in all", labels(model, worker))),
      running_(metrics.gauge("tessera_sequences", "Sequences by state",
                             labels(model, worker, "state", "running"))),
      batch_rows_(metrics.gauge("tessera_batch_size", "Rows of the latest step", labels(model, worker))),
      prefill_tokens_(
          metrics.counter("tessera_tokens_total", kTokensHelp, labels(model, worker, "phase", "prefill"))),
      decode_tokens_(
          metrics.counter("tessera_tokens_total", kTokensHelp, labels(model, worker, "phase", "decode"))),
      hit_tokens_(metrics.counter("tessera_prefix_cache_hit_tokens_total",
                                  "Tokens of opened sequences found in the prefix cache",
                                  labels(model, worker))),
      query_tokens_(metrics.counter("tessera_prefix_cache_query_tokens_total",
                                    "Tokens of opened sequences looked up in the prefix cache",
                                    labels(model, worker))),
      preemptions_(metrics.counter("tessera_preemptions_total",
                                   "Sequences that gave their KV pages to others", labels(model, worker))),
      step_seconds_(metrics.histogram("tessera_step_duration_seconds",
                                      "Time of one step, scheduling included",
                                      obs::exponential_buckets(0.0005, 2, 16), labels(model, worker))) {}

void EngineMetrics::update(const EngineStats& stats) {
  auto add = [](obs::Counter& counter, int64_t now, int64_t before) {
    if (now != before) counter.inc(static_cast<double>(now - before));
  };
  free_.set(static_cast<double>(stats.kv_free));
  cached_.set(static_cast<double>(stats.kv_cached));
  used_.set(static_cast<double>(stats.kv_used));
  capacity_.set(static_cast<double>(stats.kv_total));
  running_.set(static_cast<double>(stats.running));
  batch_rows_.set(static_cast<double>(stats.last_batch_rows));
  add(prefill_tokens_, stats.prefill_tokens, last_.prefill_tokens);
  add(decode_tokens_, stats.decode_tokens, last_.decode_tokens);
  add(hit_tokens_, stats.prefix_hit_tokens, last_.prefix_hit_tokens);
  add(query_tokens_, stats.prefix_query_tokens, last_.prefix_query_tokens);
  add(preemptions_, stats.preemptions, last_.preemptions);
  last_ = stats;
}

}  // namespace tessera::engine
