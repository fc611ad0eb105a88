#include "app/http_service.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "base/clock.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

constexpr std::chrono::seconds kLastBytesTime{2};  // for the errors of cut answers to reach their clients

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::atomic<int> g_stop_fd{-1};  // a signal handler can reach nothing else

void on_stop_signal(int signal) {
  const int saved = errno;
  const int fd = g_stop_fd;
  if (fd < 0) ::_exit(signal == SIGINT ? kInterrupted : kDone);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
  errno = saved;
}

// No new requests; running answers may end, within the timeout. What is still running then is ended with an
// error.
void stop_serving(const HttpOptions& options, gateway::HttpFront& front, net::HttpServer& server) {
  obs::log_info("serve", "stopping: no new requests, running answers may end",
                {{"active", front.active_requests()}, {"timeout_s", options.shutdown_timeout}});
  front.start_draining();
  server.stop_accepting();
  if (server.wait_idle(std::chrono::seconds(options.shutdown_timeout))) return;
  const std::vector<std::string> cut = front.cut_running();
  std::string ids;
  for (const std::string& id : cut) ids += (ids.empty() ? "" : ",") + id;
  obs::log_warn("serve", "cut running answers", {{"count", static_cast<int>(cut.size())}, {"requests", ids}});
  server.wait_idle(kLastBytesTime);
}

}  // namespace

Status check_http_options(const HttpOptions& options) {
  if (!is_loopback(options.host) && options.api_keys.empty() && !options.require_key)
    return invalid_argument("--host " + options.host +
                            " lets other machines in: give --api-key KEY or --require-key as well, or listen "
                            "on 127.0.0.1");
  if (options.port < 0 || options.port > 65535) return invalid_argument("--port is between 0 and 65535");
  if (options.io_threads < 1 || options.io_threads > 64)
    return invalid_argument("--io-threads is between 1 and 64");
  if (options.tls_cert.empty() != options.tls_key.empty())
    return invalid_argument("--tls-cert and --tls-key go together");
  if (options.shutdown_timeout < 0) return invalid_argument("--shutdown-timeout is at least 0 seconds");
  return {};
}

Status start_logging(const std::string& level, const std::string& format, const std::string& file) {
  obs::LogConfig log;
  TESSERA_ASSIGN_OR_RETURN(log.level, obs::parse_level(level));
  TESSERA_ASSIGN_OR_RETURN(log.format, obs::parse_log_format(format));
  log.file = file;
  return obs::configure_logging(log);
}

StopSignals::StopSignals() : fd_(::eventfd(0, EFD_CLOEXEC)) {
  std::signal(SIGPIPE, SIG_IGN);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction action {};
    action.sa_handler = on_stop_signal;
    action.sa_flags = SA_RESTART;
    sigaction(signal, &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  g_stop_fd = -1;
  ::close(fd_);
}

void StopSignals::arm() {
  g_stop_fd = fd_;
}

void StopSignals::wait() const {
  uint64_t count = 0;
  while (::read(fd_, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

bool StopSignals::wait_for(std::chrono::milliseconds limit) const {
  pollfd poll_fd{fd_, POLLIN, 0};
  if (::poll(&poll_fd, 1, static_cast<int>(limit.count())) <= 0) return false;
  wait();
  return true;
}

void StopSignals::raise() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}

void publish_session_gauges(obs::Metrics& metrics, cluster::SessionManager& sessions,
                            const std::string& model) {
  auto& waiting =
      metrics.gauge("tessera_sequences", "Sequences by state", {{"state", "waiting"}, {"model", model}});
  auto& queue = metrics.gauge("tessera_queue_size", "Requests that wait for room", {{"model", model}});
  auto& reopened = metrics.gauge("tessera_sessions_reopened", "Sessions that went on after a preemption",
                                 {{"model", model}});
  auto& failovers = metrics.gauge("tessera_session_failovers",
                                  "Routes that broke under a session, since the start", {{"model", model}});
  auto& broken = metrics.gauge("tessera_sessions_without_route", "Running sessions that wait for a route",
                               {{"model", model}});
  metrics.on_collect([&waiting, &queue, &reopened, &failovers, &broken, &sessions] {
    const cluster::SessionStats stats = sessions.stats();
    waiting.set(static_cast<double>(stats.waiting));
    queue.set(static_cast<double>(stats.waiting));
    reopened.set(static_cast<double>(stats.reopened));
    failovers.set(static_cast<double>(stats.failovers));
    broken.set(static_cast<double>(stats.broken));
  });
}

Status serve_http(const HttpOptions& options, StopSignals& signals, const HttpService& service) {
  SystemClock clock;
  auto executor = make_thread_executor("front");
  gateway::Readiness readiness(service.health, service.probe, *executor, clock);
  gateway::HttpFront front({.cors_origins = options.cors_origins,
                            .groups = service.groups,
                            .audit = service.audit,
                            .tls = !options.tls_cert.empty(),
                            .admission = service.admission},
                           service.authenticator, service.models, service.metrics, readiness, *executor,
                           clock);
  net::ServerOptions server_options;
  server_options.host = options.host;
  server_options.port = static_cast<uint16_t>(options.port);
  server_options.io_threads = options.io_threads;
  server_options.tls_certificate = options.tls_cert;
  server_options.tls_key = options.tls_key;
  signals.arm();
  TESSERA_ASSIGN_OR_RETURN(auto server, net::HttpServer::start(server_options, front));
  service.on_listening(
      (options.tls_cert.empty() ? "http://" : "https://") +
      (options.host.find(':') == std::string::npos ? options.host : "[" + options.host + "]") + ":" +
      std::to_string(server->port()));
  signals.wait();
  stop_serving(options, front, *server);
  server->stop();
  service.settle();  // requests of sessions, and what the executor still runs, belong to `front`
  drain(*executor);
  obs::log_info("serve", "stopped");
  return {};
}

}  // namespace tessera::app
