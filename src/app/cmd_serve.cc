// serve: gateway and worker in one process; the default way to use Tessera.
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <future>

#include "app/commands.h"
#include "app/local_completer.h"
#include "base/clock.h"
#include "gateway/http_front.h"
#include "obs/health.h"
#include "obs/log.h"

namespace tessera::app {
namespace {

constexpr std::chrono::seconds kLastBytesTime{2};  // for the errors of cut answers to reach their clients

struct ServeOptions : ModelOptions {
  std::string host = "127.0.0.1";
  int port = 8080;
  std::vector<std::string> api_keys;
  std::string tls_cert, tls_key;
  std::vector<std::string> cors_origins;
  int shutdown_timeout = 60;
  int io_threads = 1;
  std::string log_level = "info";
  std::string log_format = "text";
  std::string log_file;
  template <typename V>
  void fields(V& v) {
    ModelOptions::fields(v);
    v("host", host, "address to listen on; another than loopback needs --api-key");
    v("port", port, "port to listen on; 0 = any free one");
    v("api-key", api_keys, "a key that opens the API; repeat for several");
    v("served-name", served_name, "the model's name in the API; default: what --model says");
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

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

Status check_options(const ServeOptions& options) {
  if (!is_loopback(options.host) && options.api_keys.empty())
    return invalid_argument("--host " + options.host +
                            " lets other machines in: give --api-key KEY as well, or listen on 127.0.0.1");
  if (options.port < 0 || options.port > 65535) return invalid_argument("--port is between 0 and 65535");
  if (options.io_threads < 1 || options.io_threads > 64)
    return invalid_argument("--io-threads is between 1 and 64");
  if (options.tls_cert.empty() != options.tls_key.empty())
    return invalid_argument("--tls-cert and --tls-key go together");
  if (options.shutdown_timeout < 0) return invalid_argument("--shutdown-timeout is at least 0 seconds");
  return {};
}

Status start_logging(const ServeOptions& options) {
  obs::LogConfig log;
  TESSERA_ASSIGN_OR_RETURN(log.level, obs::parse_level(options.log_level));
  TESSERA_ASSIGN_OR_RETURN(log.format, obs::parse_log_format(options.log_format));
  log.file = options.log_file;
  return obs::configure_logging(log);
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

// SIGINT and SIGTERM. Until arm() they end the program at once: while a model loads nothing runs yet that
// could be lost. After it they are something to wait for.
class StopSignals {
 public:
  StopSignals() : fd_(::eventfd(0, EFD_CLOEXEC)) {
    std::signal(SIGPIPE, SIG_IGN);
    for (const int signal : {SIGINT, SIGTERM}) {
      struct sigaction action {};
      action.sa_handler = on_stop_signal;
      action.sa_flags = SA_RESTART;
      sigaction(signal, &action, nullptr);
    }
  }
  ~StopSignals() {
    g_stop_fd = -1;
    ::close(fd_);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  void arm() { g_stop_fd = fd_; }
  void wait() const {
    uint64_t count = 0;
    while (::read(fd_, &count, sizeof count) < 0 && errno == EINTR) {
    }
  }

 private:
  const int fd_;
};

void publish_session_gauges(obs::Metrics& metrics, cluster::SessionManager& sessions,
                            const std::string& model) {
  auto& waiting =
      metrics.gauge("tessera_sequences", "Sequences by state", {{"state", "waiting"}, {"model", model}});
  auto& queue = metrics.gauge("tessera_queue_size", "Requests that wait for room", {{"model", model}});
  auto& reopened = metrics.gauge("tessera_sessions_reopened", "Sessions that went on after a preemption",
                                 {{"model", model}});
  metrics.on_collect([&waiting, &queue, &reopened, &sessions] {
    const cluster::SessionStats stats = sessions.stats();
    waiting.set(static_cast<double>(stats.waiting));
    queue.set(static_cast<double>(stats.waiting));
    reopened.set(static_cast<double>(stats.reopened));
  });
}

// No new requests; running answers may end, within the timeout. What is still running then is ended with an
// error.
void stop_serving(const ServeOptions& options, gateway::HttpFront& front, net::HttpServer& server) {
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

Status serve_until_stopped(const ServeOptions& options, StopSignals& signals) {
  obs::Metrics metrics;
  obs::Health health;
  TESSERA_ASSIGN_OR_RETURN(auto local, LocalCluster::start(options, &metrics));
  health.set("model", true);
  LocalCompleter completer(*local);
  api::ModelSet models;
  models.add(completer.get());
  publish_session_gauges(metrics, local->sessions(), local->model().served_name);

  SystemClock clock;
  auto executor = make_thread_executor("front");
  gateway::Readiness readiness(
      health, [&local](gateway::Readiness::Callback done) { local->probe(std::move(done)); }, *executor,
      clock);
  gateway::HttpFront front({options.api_keys, options.cors_origins}, models, metrics, readiness, *executor,
                           clock);

  net::ServerOptions server_options;
  server_options.host = options.host;
  server_options.port = static_cast<uint16_t>(options.port);
  server_options.io_threads = options.io_threads;
  server_options.tls_certificate = options.tls_cert;
  server_options.tls_key = options.tls_key;
  signals.arm();
  TESSERA_ASSIGN_OR_RETURN(auto server, net::HttpServer::start(server_options, front));
  const std::string url =
      (options.tls_cert.empty() ? "http://" : "https://") +
      (options.host.find(':') == std::string::npos ? options.host : "[" + options.host + "]") + ":" +
      std::to_string(server->port());
  obs::log_info("serve", "listening on " + url,
                {{"model", local->model().served_name},
                 {"context", local->model().context_length},
                 {"blocks", static_cast<int>(local->workers().size())}});

  signals.wait();
  stop_serving(options, front, *server);
  server->stop();
  std::promise<void> drained;  // what the executor still runs belongs to `front`
  executor->post([&drained] { drained.set_value(); });
  drained.get_future().wait();
  obs::log_info("serve", "stopped");
  return {};
}

int serve(ServeOptions& options) {
  Status status = check_options(options);
  if (status.ok()) status = start_logging(options);
  if (!status.ok()) return report(status);
  StopSignals signals;
  status = serve_until_stopped(options, signals);
  return status.ok() ? kDone : report(status);
}

}  // namespace

Command serve_command() {
  auto options = std::make_shared<ServeOptions>();
  return {"serve", "serves a model through an OpenAI-compatible API",
          "  tessera serve --model smollm2:135m\n"
          "  tessera serve --model ./llama-3.2-1b.gguf --host 0.0.0.0 --api-key secret --context 8192",
          fields_of(*options), [options] { return serve(*options); }};
}

}  // namespace tessera::app
