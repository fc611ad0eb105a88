#include "obs/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <stdexcept>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"

namespace tessera::obs {

void Counter::inc(double amount) {
  impl_->Increment(amount);
}
double Counter::value() const {
  return impl_->Value();
}
void Gauge::set(double value) {
  impl_->Set(value);
}
void Gauge::add(double amount) {
  impl_->Increment(amount);
}
double Gauge::value() const {
  return impl_->Value();
}
void Histogram::observe(double value) {
  impl_->Observe(value);
}

struct Metrics::State {
  using Key = std::pair<std::string, Labels>;

  // The registered handle of (name, labels), made by `create` the first time.
  template <typename Handle, typename Create>
  Handle& get(std::map<Key, std::unique_ptr<Handle>>& handles, const std::string& name, const Labels& labels,
              Create create) {
    MutexLock lock(mutex);
    auto& handle = handles[Key(name, labels)];
    if (!handle) {
      try {
        handle = std::make_unique<Handle>(create());
      } catch (const std::invalid_argument& error) {
        check_failed(__FILE__, __LINE__, "metric is well formed", name + ": " + error.what());
      }
    }
    return *handle;
  }

  prometheus::Registry registry;
  Mutex mutex;
  std::map<Key, std::unique_ptr<Counter>> counters;
  std::map<Key, std::unique_ptr<Gauge>> gauges;
  std::map<Key, std::unique_ptr<Histogram>> histograms;
  std::vector<std::function<void()>> refreshers TESSERA_GUARDED_BY(mutex);
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::counter(const std::string& name, const std::string& help, const Labels& labels) {
  return state_->get(state_->counters, name, labels, [&]() -> prometheus::Counter& {
    return prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry).Add(labels);
  });
}

Gauge& Metrics::gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return state_->get(state_->gauges, name, labels, [&]() -> prometheus::Gauge& {
    return prometheus::BuildGauge().Name(name).Help(help).Register(state_->registry).Add(labels);
  });
}

Histogram& Metrics::histogram(const std::string& name, const std::string& help,
                              const std::vector<double>& buckets, const Labels& labels) {
  return state_->get(state_->histograms, name, labels, [&]() -> prometheus::Histogram& {
    auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry);
    return family.Add(labels, prometheus::Histogram::BucketBoundaries(buckets));
  });
}

void Metrics::on_collect(std::function<void()> refresh) {
  MutexLock lock(state_->mutex);
  state_->refreshers.push_back(std::move(refresh));
}

std::string Metrics::serialize() const {
  std::vector<std::function<void()>> refreshers;
  {
    MutexLock lock(state_->mutex);
    refreshers = state_->refreshers;
  }
  for (const auto& refresh : refreshers) refresh();
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

std::vector<double> exponential_buckets(double start, double factor, int count) {
  std::vector<double> bounds;
  for (double bound = start; count > 0; --count, bound *= factor) bounds.push_back(bound);
  return bounds;
}

}  // namespace tessera::obs
