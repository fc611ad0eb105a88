// What is kept of each HTTP request: metrics, and one line in the log when it ends. Never its text.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "api/service.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "obs/metrics.h"

namespace tessera::gateway {

struct RequestLine {
  std::string id;
  std::string method;
  std::string route;  // as in the routing table, not as sent: labels must stay few
  std::string remote_address;
  bool quiet = false;  // probes and scrapes: logged at debug
};

// Thread-safe. Must outlive its records.
class RequestMetrics {
 public:
  RequestMetrics(obs::Metrics& metrics, const Clock& clock);

  // A request has come; the record counts as active until its on_end().
  std::shared_ptr<api::CompletionObserver> begin(RequestLine line);
  int active() const { return active_; }

 private:
  friend class RequestRecord;
  obs::Metrics& metrics_;
  const Clock& clock_;
  obs::Gauge& active_gauge_;
  std::atomic<int> active_{0};
};

}  // namespace tessera::gateway
