// Blocking HTTP/1.1 client with deadlines, for downloads, the tools of the terminal and the load generator.
// Retries are the caller's: Unavailable and DeadlineExceeded are worth another try.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "net/http.h"
#include "net/url.h"

namespace tessera::net {

class ClientSocket;

struct HttpReply {
  int status = 0;
  Headers headers;   // names in lower case
  std::string body;  // empty where on_body took it
  std::string url;   // that answered, after redirects

  const std::string* header(std::string_view lower_name) const;
};

// Ends a transfer from another thread: the request that it was given to comes back with kCancelled, soon,
// also while it waits for a byte (a connection that is being made is not cut short). Thread-safe; for one
// request.
class HttpCanceller {
 public:
  void cancel();
  bool cancelled() const;

 private:
  friend class HttpClientConnection;
  void bind(const ClientSocket* socket);
  mutable Mutex mutex_;
  bool cancelled_ TESSERA_GUARDED_BY(mutex_) = false;
  const ClientSocket* socket_ TESSERA_GUARDED_BY(mutex_) = nullptr;
};

struct HttpClientRequest {
  std::string method = "GET";
  std::string url;
  // Host, Content-Length, Connection and Range are written by the client.
  Headers headers;
  std::string body;
  std::optional<uint64_t>
      range_from;  // asks for the bytes from here on; a server may answer 200 with them all

  // Takes the body of a 2xx answer as it arrives (SSE: event by event as the server sends). False ends the
  // transfer with kCancelled. Other answers' bodies, and all without it, are kept in HttpReply::body.
  std::function<bool(std::string_view chunk)> on_body;
  // Sees status and headers before the first body byte; false ends with kCancelled. Not called for redirects
  // that are followed.
  std::function<bool(const HttpReply& head)> on_head;
  uint64_t max_body_bytes = uint64_t{64} << 20;  // of HttpReply::body: ResourceExhausted above

  std::chrono::milliseconds connect_timeout{10000};  // with the TLS handshake, without the name lookup
  std::chrono::milliseconds idle_timeout{60000};     // without a byte either way
  std::chrono::milliseconds total_timeout{0};        // over redirects and all; 0: none
  int max_redirects = 5;                             // 0: a redirect is an answer like others
  std::string ca_file;                               // PEM; empty: the system's
  // A kept connection that ends before the first byte of the answer (the server closed it as idle, RFC 9112,
  // 9.3.1) is made again once, for requests that may reach the server twice.
  bool repeatable = false;
  std::shared_ptr<HttpCanceller> canceller;  // may be null
};

// One request on a connection of its own. Redirects keep method and body for 307 and 308, else become GET
// (HEAD stays); Authorization, Cookie and Proxy-Authorization are not sent on to another origin, and https
// never leads to http.
Result<HttpReply> http_request(const HttpClientRequest& request);

// Keep-alive to one origin, for many requests one after another; for one thread. Does not follow redirects.
class HttpClientConnection {
 public:
  // Connects at the first request, and again when the server has closed between two requests. InvalidArgument
  // for a bad URL or CA file.
  static Result<std::unique_ptr<HttpClientConnection>> open(const std::string& origin,
                                                            const std::string& ca_file = {});
  ~HttpClientConnection();

  // `request.url` must be of this origin; its ca_file and max_redirects are not looked at. After an error the
  // connection is closed.
  Result<HttpReply> send(const HttpClientRequest& request);

 private:
  friend Result<HttpReply> http_request(const HttpClientRequest& request);
  struct State;
  explicit HttpClientConnection(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tessera::net
