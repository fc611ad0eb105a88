// What a server's connections share. Outlives them all: a writer that a handler still holds may own the last
// connection.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "net/http.h"
#include "net/stream.h"

namespace tessera::net {

class Connection;

struct ServerCore {
  ServerCore(ServerOptions server_options, HttpHandler& request_handler)
      : options(std::move(server_options)), handler(request_handler), io(options.io_threads) {}

  const ServerOptions options;
  HttpHandler& handler;
  std::shared_ptr<TlsServerContext> tls;  // null: plain
  asio::io_context io;
  std::atomic<bool> draining{false};
  std::atomic<uint64_t> accepted{0};
  std::atomic<uint64_t> refused{0};
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> rejected{0};

  void add(Connection* connection, std::weak_ptr<Connection> weak);
  void remove(Connection* connection);
  size_t open_connections() const;
  bool wait_empty(std::chrono::milliseconds timeout) const;
  std::vector<std::shared_ptr<Connection>> connections() const;
  // Those whose time is up, or whose client has to be looked at.
  std::vector<std::shared_ptr<Connection>> due_connections(std::chrono::nanoseconds now) const;

 private:
  mutable Mutex mutex_;  // a leaf; a Connection is never released under it
  mutable CondVar empty_;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> connections_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::net
