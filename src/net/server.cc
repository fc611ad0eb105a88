#include <fmt/core.h>
#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>

#include "net/connection.h"
#include "net/http.h"
#include "net/server_core.h"
#include "obs/log.h"

namespace tessera::net {
namespace {

using Acceptor = asio::ip::tcp::acceptor;

constexpr uint64_t kReservedFiles = 256;     // for models, databases, workers, and connections being refused
constexpr uint64_t kMaxRefusedAtOnce = 128;  // of those: answered 503; more are closed without a word
constexpr std::chrono::milliseconds kMaxSweep{250};

// Raises the soft limit on open files to the hard one and says how many connections that allows.
uint64_t default_max_connections() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  }
  const uint64_t files = std::min<uint64_t>(limit.rlim_cur, 1'000'000);
  return files > 2 * kReservedFiles ? files - kReservedFiles : std::max<uint64_t>(files / 2, 1);
}

// An IPv4 client of an IPv6 socket by its IPv4 address.
std::string address_text(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string();
  return address.to_string();
}

Status check_options(const ServerOptions& options) {
  if (options.io_threads < 1 || options.io_threads > 1024)
    return invalid_argument("the number of I/O threads must be 1 to 1024");
  if (options.tls_certificate.empty() != options.tls_key.empty())
    return invalid_argument("TLS needs both a certificate and a key");
  return {};
}

class AsioServer final : public HttpServer {
 public:
  AsioServer(const ServerOptions& options, HttpHandler& handler)
      : core_(std::make_shared<ServerCore>(options, handler)),
        acceptor_(core_->io),
        sweep_timer_(core_->io) {}
  ~AsioServer() override { stop(); }

  Status listen();
  void run();

  uint16_t port() const override { return port_; }
  void stop_accepting() override;
  bool wait_idle(std::chrono::milliseconds timeout) override { return core_->wait_empty(timeout); }
  void stop() override;
  ServerCounters counters() const override {
    return {core_->accepted, core_->refused, core_->open_connections(), core_->requests, core_->rejected};
  }

 private:
  asio::awaitable<void> accept_loop();
  asio::awaitable<void> sweep_loop();
  void admit(Socket socket);

  const std::shared_ptr<ServerCore> core_;
  Acceptor acceptor_;               // on a strand of its own
  asio::steady_timer sweep_timer_;  // likewise
  uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::mutex stop_mutex_;
  std::vector<std::thread> threads_;
};

Status AsioServer::listen() {
  const ServerOptions& options = core_->options;
  if (!options.tls_certificate.empty()) {
    TESSERA_ASSIGN_OR_RETURN(core_->tls, load_tls_context(options.tls_certificate, options.tls_key));
  }
  ErrorCode error;
  asio::ip::tcp::resolver resolver(core_->io);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), asio::ip::tcp::resolver::passive, error);
  if (error || found.empty())
    return invalid_argument(fmt::format("cannot listen on '{}': {}", options.host, error.message()));
  // "localhost" is both; clients try IPv4 whatever else they try.
  asio::ip::tcp::endpoint endpoint = found.begin()->endpoint();
  for (const auto& entry : found)
    if (entry.endpoint().protocol() == asio::ip::tcp::v4()) endpoint = entry.endpoint();
  const auto failed = [&](const char* what) {
    return Status(Code::kIo,
                  fmt::format("cannot {} {}:{}: {}", what, options.host, options.port, error.message()));
  };
  if (acceptor_.open(endpoint.protocol(), error)) return failed("open a socket for");
  acceptor_.set_option(Acceptor::reuse_address(true), error);
  if (endpoint.protocol() == asio::ip::tcp::v6() && endpoint.address().is_unspecified())
    acceptor_.set_option(asio::ip::v6_only(false), error);
  if (acceptor_.bind(endpoint, error)) return failed("bind");
  if (acceptor_.listen(8192, error)) return failed("listen on");
  port_ = acceptor_.local_endpoint(error).port();
  return {};
}

void AsioServer::run() {
  asio::co_spawn(acceptor_.get_executor(), accept_loop(), asio::detached);
  asio::co_spawn(sweep_timer_.get_executor(), sweep_loop(), asio::detached);
  for (int i = 0; i < core_->options.io_threads; ++i) threads_.emplace_back([this] { core_->io.run(); });
}

asio::awaitable<void> AsioServer::accept_loop() {
  asio::steady_timer pause(acceptor_.get_executor());
  while (!core_->draining) {
    ErrorCode error;
    Socket socket = co_await acceptor_.async_accept(asio::make_strand(core_->io),
                                                    asio::redirect_error(asio::use_awaitable, error));
    if (!acceptor_.is_open()) break;
    if (error) {
      // Out of files or memory: those that are open will end; until then the backlog waits.
      if (error != asio::error::connection_aborted)
        obs::log_warn("net", "cannot accept a connection", {{"error", error.message()}});
      pause.expires_after(std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    admit(std::move(socket));
  }
}

void AsioServer::admit(Socket socket) {
  ++core_->accepted;
  ErrorCode error;
  const auto remote = socket.remote_endpoint(error);
  if (error) return;
  socket.set_option(asio::ip::tcp::no_delay(true), error);
  const uint64_t open = core_->open_connections();
  const uint64_t limit = core_->options.max_connections;
  const auto admission = open < limit ? Connection::Admission::kServe : Connection::Admission::kRefuse;
  if (admission == Connection::Admission::kRefuse) {
    ++core_->refused;
    if (open >= limit + kMaxRefusedAtOnce) return;
  }
  auto stream =
      core_->tls ? make_tls_stream(std::move(socket), core_->tls) : make_plain_stream(std::move(socket));
  std::make_shared<Connection>(core_, std::move(stream), address_text(remote.address()), admission)->start();
}

// One timer for all connections: deadlines are set for every read and write, and seldom pass.
asio::awaitable<void> AsioServer::sweep_loop() {
  const ServerOptions& options = core_->options;
  const auto shortest = std::min({options.idle_timeout, options.header_timeout, options.body_timeout,
                                  options.write_timeout, 4 * kMaxSweep});
  const auto period = std::max<std::chrono::milliseconds>(shortest / 4, std::chrono::milliseconds(10));
  while (!stopping_) {
    ErrorCode ignored;
    sweep_timer_.expires_after(period);
    co_await sweep_timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    for (const auto& connection : core_->due_connections(now)) connection->check();
  }
}

void AsioServer::stop_accepting() {
  if (core_->draining.exchange(true)) return;
  asio::post(acceptor_.get_executor(), [this] {
    ErrorCode ignored;
    acceptor_.close(ignored);
  });
  for (const auto& connection : core_->connections()) connection->begin_drain();
}

void AsioServer::stop() {
  const std::lock_guard lock(stop_mutex_);
  if (threads_.empty()) return;
  stop_accepting();
  stopping_ = true;
  asio::post(sweep_timer_.get_executor(), [this] { sweep_timer_.cancel(); });
  // A connection accepted a moment ago may register late; the I/O threads end when none is left.
  do {
    for (const auto& connection : core_->connections()) connection->drop();
  } while (!core_->wait_empty(std::chrono::milliseconds(20)));
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace

void ServerCore::add(Connection* connection, std::weak_ptr<Connection> weak) {
  MutexLock lock(mutex_);
  connections_.emplace(connection, std::move(weak));
}

void ServerCore::remove(Connection* connection) {
  MutexLock lock(mutex_);
  connections_.erase(connection);
  if (connections_.empty()) empty_.notify_all();
}

size_t ServerCore::open_connections() const {
  MutexLock lock(mutex_);
  return connections_.size();
}

bool ServerCore::wait_empty(std::chrono::milliseconds timeout) const {
  MutexLock lock(mutex_);
  return empty_.wait_for(mutex_, timeout, [&] { return connections_.empty(); });
}

std::vector<std::shared_ptr<Connection>> ServerCore::connections() const {
  std::vector<std::shared_ptr<Connection>> all;
  MutexLock lock(mutex_);
  for (const auto& [raw, weak] : connections_)
    if (auto connection = weak.lock()) all.push_back(std::move(connection));
  return all;
}

std::vector<std::shared_ptr<Connection>> ServerCore::due_connections(std::chrono::nanoseconds now) const {
  std::vector<std::shared_ptr<Connection>> due;
  MutexLock lock(mutex_);
  for (const auto& [raw, weak] : connections_)  // ~Connection waits for this lock: `raw` is alive
    if (raw->due(now))
      if (auto connection = weak.lock()) due.push_back(std::move(connection));
  return due;
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const ServerOptions& options, HttpHandler& handler) {
  TESSERA_RETURN_IF_ERROR(check_options(options));
  ServerOptions chosen = options;
  const uint64_t possible = default_max_connections();
  if (chosen.max_connections == 0) chosen.max_connections = possible;
  auto server = std::make_unique<AsioServer>(chosen, handler);
  TESSERA_RETURN_IF_ERROR(server->listen());
  server->run();
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace tessera::net
