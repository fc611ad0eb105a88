// Metrics in Prometheus' model. One Metrics object per process (or test) is passed by reference to whoever
// measures; asking twice for the same name and labels gives the same metric.
//
//   obs::Counter& tokens = metrics.counter("tessera_tokens_total", "Tokens generated");
//   tokens.inc();                                   // lock-free or a few nanoseconds: fit for the hot path
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace tessera::obs {

using Labels = std::map<std::string, std::string>;

// The three are thread-safe and live as long as their Metrics.
class Counter {
 public:
  explicit Counter(prometheus::Counter& impl) : impl_(&impl) {}
  void inc(double amount = 1);  // negative amounts are ignored
  double value() const;

 private:
  prometheus::Counter* impl_;
};

class Gauge {
 public:
  explicit Gauge(prometheus::Gauge& impl) : impl_(&impl) {}
  void set(double value);
  void add(double amount);
  double value() const;

 private:
  prometheus::Gauge* impl_;
};

class Histogram {
 public:
  explicit Histogram(prometheus::Histogram& impl) : impl_(&impl) {}
  void observe(double value);

 private:
  prometheus::Histogram* impl_;
};

// Thread-safe. Names match [a-zA-Z_:][a-zA-Z0-9_:]*; a name has one kind and one help text: breaking that is
// our own bug and ends the process.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  Counter& counter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  // `buckets`: upper bounds, ascending, without +Inf. The first caller of a name decides them.
  Histogram& histogram(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                       const Labels& labels = {});

  // `refresh` runs at the start of every serialize(), on its thread: for gauges that are cheaper to read than
  // to keep up to date. What it captures must outlive this object, or be held weakly.
  void on_collect(std::function<void()> refresh);

  // The Prometheus text format 0.0.4 (content type: text/plain; version=0.0.4).
  std::string serialize() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// start, start*factor, … (count bounds): for latencies and sizes.
std::vector<double> exponential_buckets(double start, double factor, int count);

}  // namespace tessera::obs
