#include "gateway/request_record.h"

#include <optional>

#include "obs/log.h"

namespace tessera::gateway {
namespace {

const std::vector<double>& latency_buckets() {
  static const std::vector<double> buckets = obs::exponential_buckets(0.001, 2, 18);  // 1 ms … 131 s
  return buckets;
}

double seconds(MonotonicTime duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

// Tokens and the end may come from different threads.
class RequestRecord final : public api::CompletionObserver {
 public:
  RequestRecord(RequestMetrics& owner, RequestLine line)
      : owner_(owner), line_(std::move(line)), start_(owner.clock_.now()) {}
  // Dropped unanswered: the server has told the client 500.
  ~RequestRecord() override { on_end(500, {}); }

  void on_model(const std::string& model) override {
    MutexLock lock(mutex_);
    model_ = model;
    const obs::Labels labels{{"model", model}};
    first_token_ = &owner_.metrics_.histogram("tessera_time_to_first_token_seconds",
                                              "From the request to its first generated token.",
                                              latency_buckets(), labels);
    inter_token_ =
        &owner_.metrics_.histogram("tessera_inter_token_latency_seconds",
                                   "Between two generated tokens of a choice.", latency_buckets(), labels);
    tokens_ = &owner_.metrics_.counter("tessera_tokens_generated_total", "Generated tokens.", labels);
  }

  void on_prompt(int) override {}

  void on_tokens(int choice, int count) override {
    const MonotonicTime now = owner_.clock_.now();
    MutexLock lock(mutex_);
    if (ended_) return;
    completion_tokens_ += count;
    tokens_->inc(count);
    if (!time_to_first_token_) {
      time_to_first_token_ = now - start_;
      first_token_->observe(seconds(*time_to_first_token_));
    }
    const auto index = static_cast<size_t>(choice);
    if (last_token_.size() <= index) last_token_.resize(index + 1);
    if (last_token_[index]) {
      const double each = seconds(now - *last_token_[index]) / count;
      for (int i = 0; i < count; ++i) inter_token_->observe(each);
    }
    last_token_[index] = now;
  }

  void on_end(int status, const api::Usage& usage) final {
    const MonotonicTime total = owner_.clock_.now() - start_;
    MutexLock lock(mutex_);
    if (ended_) return;
    ended_ = true;
    measure_end(status, total);
    log_end(status, total, usage);
    --owner_.active_;
    owner_.active_gauge_.add(-1);
  }

 private:
  void measure_end(int status, MonotonicTime total) TESSERA_REQUIRES(mutex_) {
    obs::Metrics& metrics = owner_.metrics_;
    const std::string code = std::to_string(status);
    metrics
        .counter("tessera_requests_total", "HTTP requests that ended.",
                 {{"route", line_.route}, {"status", code}})
        .inc();
    metrics
        .histogram("tessera_request_latency_seconds", "From the request to the end of its answer.",
                   latency_buckets(), {{"route", line_.route}})
        .observe(seconds(total));
    if (model_.empty()) return;
    metrics
        .counter("tessera_inference_requests_total", "Completion requests that ended.",
                 {{"model", model_}, {"status", code}})
        .inc();
    metrics
        .histogram("tessera_inference_latency_seconds", "From a completion request to the end of its answer.",
                   latency_buckets(), {{"model", model_}})
        .observe(seconds(total));
  }

  void log_end(int status, MonotonicTime total, const api::Usage& usage) TESSERA_REQUIRES(mutex_) {
    const obs::Level level = line_.quiet ? obs::Level::kDebug : obs::Level::kInfo;
    if (!obs::log_enabled(level)) return;
    const double total_ms = seconds(total) * 1e3;
    if (model_.empty()) {
      obs::log(level, "http", "request",
               {{"id", line_.id},
                {"method", line_.method},
                {"route", line_.route},
                {"remote", line_.remote_address},
                {"status", status},
                {"total_ms", total_ms}});
      return;
    }
    obs::log(level, "http", "request",
             {{"id", line_.id},
              {"method", line_.method},
              {"route", line_.route},
              {"remote", line_.remote_address},
              {"status", status},
              {"model", model_},
              {"ttft_ms", time_to_first_token_ ? seconds(*time_to_first_token_) * 1e3 : 0.0},
              {"total_ms", total_ms},
              {"prompt_tokens", usage.prompt_tokens},
              {"cached_tokens", usage.cached_tokens},
              {"completion_tokens", completion_tokens_}});
  }

  RequestMetrics& owner_;
  const RequestLine line_;
  const MonotonicTime start_;
  Mutex mutex_;
  bool ended_ TESSERA_GUARDED_BY(mutex_) = false;
  std::string model_ TESSERA_GUARDED_BY(mutex_);  // empty: not a completion, or refused before its model
  obs::Histogram* first_token_ TESSERA_GUARDED_BY(mutex_) = nullptr;
  obs::Histogram* inter_token_ TESSERA_GUARDED_BY(mutex_) = nullptr;
  obs::Counter* tokens_ TESSERA_GUARDED_BY(mutex_) = nullptr;
  std::optional<MonotonicTime> time_to_first_token_ TESSERA_GUARDED_BY(mutex_);
  std::vector<std::optional<MonotonicTime>> last_token_ TESSERA_GUARDED_BY(mutex_);  // by choice
  int completion_tokens_ TESSERA_GUARDED_BY(mutex_) = 0;
};

RequestMetrics::RequestMetrics(obs::Metrics& metrics, const Clock& clock)
    : metrics_(metrics),
      clock_(clock),
      active_gauge_(metrics.gauge("tessera_requests_active", "HTTP requests being answered.")) {}

std::shared_ptr<api::CompletionObserver> RequestMetrics::begin(RequestLine line) {
  ++active_;
  active_gauge_.add(1);
  return std::make_shared<RequestRecord>(*this, std::move(line));
}

}  // namespace tessera::gateway
