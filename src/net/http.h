// HTTP/1.1 server: requests in, answers out, in one piece or as a stream. Nothing of the I/O library shows
// here.
//
// A client that closes its write side after the request (half-close, as `printf … | nc -N`) is still
// answered. On the wire that looks like a client that went away altogether, so half a second after the end of
// the request bytes the server sends, once, bytes that every client ignores ("100 Continue" before the head,
// an SSE comment between two events): a vanished peer's kernel answers them with RST, and the client counts
// as gone. Over TLS the end of the client's bytes always means that it is gone.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tessera::net {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // as sent: "GET"
  std::string target;  // as sent: "/v1/models/a%2Fb?x=1"
  std::string path;    // percent-decoded, without the query: "/v1/models/a/b"
  std::string query;   // as sent, without '?': "x=1"; see url.h for its parts
  Headers headers;     // names in lower case, values trimmed, in the order sent
  std::string body;
  std::string remote_address;  // "127.0.0.1"
  std::string id;              // the client's X-Request-Id where it is a sane one, else made here

  // The first header of that name, or null.
  const std::string* header(std::string_view lower_name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";  // empty: no Content-Type
  std::string body;
  // Beside those the server writes: Content-Type, Content-Length, Transfer-Encoding, Connection, Date,
  // X-Request-Id.
  Headers headers;
};

// What the server hands to a handler to answer one request with: either send(), or begin_stream(), write()…,
// end_stream(). Thread-safe, never blocks; calls after the client left, or out of that order, do nothing.
// Dropping the last reference unanswered answers 500; dropping it within a stream breaks the connection, so
// that the client does not take half an answer for a whole one.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;

  virtual void send(HttpResponse response) = 0;
  virtual void begin_stream(int status, std::string content_type, Headers headers = {}) = 0;
  // Queues a chunk; what is queued together goes out in one write. False: the client is gone, or reads so
  // slowly that more than ServerOptions::max_buffered_bytes piled up, and was cut off.
  virtual bool write(std::string chunk) = 0;
  virtual void end_stream() = 0;

  virtual bool client_gone() const = 0;
  // Runs `callback` once, if the connection breaks before the answer is finished: from an I/O thread, or
  // within this call when that has already happened. It must not block. A second call replaces the first.
  virtual void on_client_gone(std::function<void()> callback) = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Called on an I/O thread, for one connection's requests in order; must not block. The answer may be given
  // within the call or later from any thread. Where `request.method` is HEAD the body is dropped by the
  // server.
  virtual void handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) = 0;
};

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address or a name of this machine; "::" listens on IPv4 too
  uint16_t port = 0;               // 0: any free one
  int io_threads = 1;
  uint64_t max_body_bytes = uint64_t{16} << 20;    // above: 413
  uint32_t max_header_bytes = uint32_t{64} << 10;  // above: 431
  // Above: 503. 0: as many as the process may open files (the soft limit is raised to the hard one), less a
  // reserve for everything else.
  uint64_t max_connections = 0;
  std::chrono::milliseconds idle_timeout{75000};    // between two requests
  std::chrono::milliseconds header_timeout{20000};  // first to last byte of a request's head; TLS handshake
  std::chrono::milliseconds body_timeout{300000};   // from the head to the last byte of the body
  std::chrono::milliseconds write_timeout{30000};   // without the client taking a single byte
  uint64_t max_buffered_bytes = uint64_t{4} << 20;  // of a stream, per connection
  std::string tls_certificate;                      // PEM files; both or none. TLS 1.2 and later
  std::string tls_key;
};

// Counted since the start, but for `open`.
struct ServerCounters {
  uint64_t accepted = 0;
  uint64_t refused = 0;   // answered 503 for lack of room
  uint64_t open = 0;      // connections now
  uint64_t requests = 0;  // handed to the handler
  uint64_t rejected = 0;  // malformed, too large or too slow: answered without the handler
};

// Owns its threads. Methods are thread-safe, but must not be called from a handler.
class HttpServer {
 public:
  // Listens when it returns. `handler` must outlive the server. InvalidArgument for an address or certificate
  // that cannot be used, kIo when the port is taken.
  static Result<std::unique_ptr<HttpServer>> start(const ServerOptions& options, HttpHandler& handler);
  virtual ~HttpServer() = default;  // as stop()

  virtual uint16_t port() const = 0;
  // No new connections, idle ones are closed, running answers end whole and say `Connection: close`.
  virtual void stop_accepting() = 0;
  // Waits until no connection is left; false when `timeout` came first.
  virtual bool wait_idle(std::chrono::milliseconds timeout) = 0;
  // Cuts what is left and joins the threads. Writers that are still held become no-ops.
  virtual void stop() = 0;
  virtual ServerCounters counters() const = 0;
};

}  // namespace tessera::net
