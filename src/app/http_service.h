// The HTTP side that `serve` and `gateway` share: options, logging, signals, and serving until told to stop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "api/model_set.h"
#include "app/command.h"
#include "cluster/session_manager.h"
#include "gateway/http_front.h"
#include "obs/health.h"

namespace tessera::app {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8080;
  std::vector<std::string> api_keys;
  bool require_key = false;
  std::string tls_cert, tls_key;
  std::vector<std::string> cors_origins;
  int shutdown_timeout = 60;
  int io_threads = 1;
  std::string log_level = "info";
  std::string log_format = "text";
  std::string log_file;
  template <typename V>
  void fields(V& v) {
    v("host", host, "address to listen on; another than loopback needs --api-key or --require-key");
    v("port", port, "port to listen on; 0 = any free one");
    v("api-key", api_keys, "a key that opens the API to an administrator; repeat for several");
    v("require-key", require_key, "nobody comes in without a key: one of `tessera keys`, or --api-key's");
    v("tls-cert", tls_cert, "PEM certificate: serves HTTPS");
    v("tls-key", tls_key, "PEM key of the certificate");
    v("cors-origin", cors_origins, "a web page's origin that may call, or *; repeat for several");
    v("shutdown-timeout", shutdown_timeout, "seconds that running answers may take to end after SIGTERM");
    v("io-threads", io_threads, "threads of the HTTP server");
    v("log-level", log_level, "debug, info, warn, error or off");
    v("log-format", log_format, "text or json");
    v("log-file", log_file, "also write the log here");
  }
};

Status check_http_options(const HttpOptions& options);
Status start_logging(const std::string& level, const std::string& format, const std::string& file);

// SIGINT and SIGTERM. Until arm() they end the program at once: while a model loads nothing runs yet that
// could be lost. After it they are something to wait for.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  void arm();
  void wait() const;
  bool wait_for(std::chrono::milliseconds limit) const;  // false: the limit came first
  void raise() const;                                    // as if a signal had come; any thread

 private:
  const int fd_;
};

void publish_session_gauges(obs::Metrics& metrics, cluster::SessionManager& sessions,
                            const std::string& model);

struct HttpService {
  const api::ModelSet& models;
  obs::Metrics& metrics;
  obs::Health& health;
  gateway::Readiness::Probe probe;
  gateway::Authenticator& authenticator;
  std::vector<gateway::RouteGroup*> groups;
  gateway::Admission* admission;
  gateway::AuditTrail* audit;
  std::function<void(const std::string& url)> on_listening;
  // Called when all connections are gone: returns when no session speaks to its request any more.
  std::function<void()> settle;
};
// Listens, serves, and when a signal comes ends within the shutdown timeout.
Status serve_http(const HttpOptions& options, StopSignals& signals, const HttpService& service);

}  // namespace tessera::app
