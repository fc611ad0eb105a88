#include "net/http_client.h"

#include <algorithm>
#include <array>

#include "net/client_socket.h"
#include "net/response_parser.h"

namespace tessera::net {
namespace {

constexpr size_t kReadBytes = size_t{64} << 10;

bool same_word(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    return low(x) == low(y);
  });
}

bool is_secret(std::string_view name) {
  return same_word(name, "authorization") || same_word(name, "cookie") ||
         same_word(name, "proxy-authorization");
}

bool is_token(std::string_view text) {
  return !text.empty() && text.find_first_of(" \t\r\n:") == std::string_view::npos;
}

// The bytes of the request's head; InvalidArgument where a header would break the framing.
Result<std::string> encode_head(const HttpClientRequest& request, const Url& url) {
  if (!is_token(request.method)) return invalid_argument("malformed HTTP method");
  std::string head = request.method + " " + url.target + " HTTP/1.1\r\nHost: " + url.authority() + "\r\n";
  bool has_agent = false;
  bool has_accept = false;
  for (const auto& [name, value] : request.headers) {
    if (!is_token(name) || value.find_first_of("\r\n") != std::string::npos ||
        value.find('\0') != std::string::npos)
      return invalid_argument("malformed HTTP header '" + name + "'");
    has_agent = has_agent || same_word(name, "user-agent");
    has_accept = has_accept || same_word(name, "accept");
    head += name + ": " + value + "\r\n";
  }
  if (!has_agent) head += "User-Agent: tessera\r\n";
  if (!has_accept) head += "Accept: */*\r\n";
  if (request.range_from) head += "Range: bytes=" + std::to_string(*request.range_from) + "-\r\n";
  const bool usually_has_body =
      request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (!request.body.empty() || usually_has_body)
    head += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  return head + "\r\n";
}

bool is_redirect(const HttpReply& reply) {
  return (reply.status == 301 || reply.status == 302 || reply.status == 303 || reply.status == 307 ||
          reply.status == 308) &&
         reply.header("location") != nullptr;
}

Deadline total_deadline(const HttpClientRequest& request) {
  return request.total_timeout.count() > 0 ? std::chrono::steady_clock::now() + request.total_timeout
                                           : Deadline::max();
}

Deadline soonest(std::chrono::milliseconds timeout, Deadline total) {
  return std::min(std::chrono::steady_clock::now() + timeout, total);
}

}  // namespace

const std::string* HttpReply::header(std::string_view lower_name) const {
  for (const auto& [name, value] : headers)
    if (name == lower_name) return &value;
  return nullptr;
}

void HttpCanceller::cancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  if (socket_ != nullptr) socket_->shut_down();
}

bool HttpCanceller::cancelled() const {
  MutexLock lock(mutex_);
  return cancelled_;
}

void HttpCanceller::bind(const ClientSocket* socket) {
  MutexLock lock(mutex_);
  socket_ = socket;
  if (cancelled_ && socket_ != nullptr) socket_->shut_down();
}

struct HttpClientConnection::State {
  Url origin;
  std::shared_ptr<const TlsTrust> trust;  // null for http
  std::unique_ptr<ClientSocket> socket;   // null: not connected
  std::string input;                      // read, not yet parsed
  bool answer_began = false;              // a byte of the latest answer has come
  HttpCanceller* bound = nullptr;         // may shut the socket down

  // `follow_redirects`: the caller follows a redirect, so on_head does not see it.
  Result<HttpReply> exchange(const HttpClientRequest& request, const Url& url, Deadline total,
                             bool follow_redirects) {
    if (socket && !(input.empty() && socket->quiet())) close();
    TESSERA_ASSIGN_OR_RETURN(const std::string head, encode_head(request, url));
    const bool kept = socket != nullptr;
    if (!socket) {
      TESSERA_ASSIGN_OR_RETURN(socket,
                               ClientSocket::connect(origin, trust, soonest(request.connect_timeout, total)));
    }
    bound = request.canceller.get();
    if (bound) bound->bind(socket.get());
    const Status sent = send_request(request, head, total);
    auto reply = receive(request, url, total, follow_redirects);
    unbind();
    if (request.canceller && request.canceller->cancelled()) {
      close();
      return tessera::cancelled("the transfer was cancelled");
    }
    // A server may refuse before it has read everything: its answer says more than our broken pipe.
    if (!reply.ok() && !sent.ok()) reply = Result<HttpReply>(sent);
    const bool unanswered = !reply.ok() && !answer_began;
    if (!reply.ok() || !sent.ok()) close();
    if (kept && unanswered && request.repeatable && reply.status().code() == Code::kUnavailable)
      return exchange(request, url, total, follow_redirects);
    return reply;
  }

  void close() {
    unbind();
    socket.reset();
    input.clear();
  }
  void unbind() {
    if (bound) bound->bind(nullptr);
    bound = nullptr;
  }

 private:
  Status send_request(const HttpClientRequest& request, const std::string& head, Deadline total) {
    TESSERA_RETURN_IF_ERROR(socket->write(head, soonest(request.idle_timeout, total)));
    for (size_t at = 0; at < request.body.size(); at += kReadBytes) {
      const auto piece = std::string_view(request.body).substr(at, kReadBytes);
      TESSERA_RETURN_IF_ERROR(socket->write(piece, soonest(request.idle_timeout, total)));
    }
    return {};
  }

  Result<HttpReply> receive(const HttpClientRequest& request, const Url& url, Deadline total,
                            bool follow_redirects) {
    HttpReply reply;
    reply.url = url.to_string();
    ResponseParser parser(request.method == "HEAD");
    Status refused;
    bool head_seen = false;
    const auto see_head = [&] {
      head_seen = true;
      reply.status = parser.status();
      reply.headers = parser.headers();
      if (follow_redirects && is_redirect(reply)) return true;
      if (!request.on_head || request.on_head(reply)) return true;
      refused = cancelled("the transfer was cancelled");
      return false;
    };
    const std::function<bool(std::string_view)> take_body = [&](std::string_view bytes) {
      if (!head_seen && !see_head()) return false;
      if (request.on_body && reply.status / 100 == 2) return request.on_body(bytes);
      if (reply.body.size() + bytes.size() > request.max_body_bytes) {
        refused = resource_exhausted("the answer is larger than " + std::to_string(request.max_body_bytes) +
                                     " bytes");
        return false;
      }
      reply.body += bytes;
      return true;
    };
    std::array<char, kReadBytes> buffer;
    answer_began = !input.empty();
    while (!parser.done()) {
      TESSERA_ASSIGN_OR_RETURN(const size_t count,
                               socket->read(buffer, soonest(request.idle_timeout, total)));
      if (count == 0) {
        TESSERA_RETURN_IF_ERROR(parser.put_end());
        break;
      }
      answer_began = true;
      input.append(buffer.data(), count);
      const auto used = parser.put(input, take_body);
      if (!refused.ok()) return refused;
      if (!used.ok()) return used.status();
      input.erase(0, *used);
      if (parser.header_done() && !head_seen && !see_head()) return refused;
    }
    if (!head_seen && !see_head()) return refused;
    if (!parser.keep_alive()) close();
    return reply;
  }
};

HttpClientConnection::HttpClientConnection(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClientConnection::~HttpClientConnection() = default;

Result<std::unique_ptr<HttpClientConnection>> HttpClientConnection::open(const std::string& origin,
                                                                         const std::string& ca_file) {
  auto state = std::make_unique<State>();
  TESSERA_ASSIGN_OR_RETURN(state->origin, parse_url(origin));
  if (state->origin.tls()) {
    TESSERA_ASSIGN_OR_RETURN(state->trust, load_tls_trust(ca_file));
  }
  return std::unique_ptr<HttpClientConnection>(new HttpClientConnection(std::move(state)));
}

Result<HttpReply> HttpClientConnection::send(const HttpClientRequest& request) {
  TESSERA_ASSIGN_OR_RETURN(const Url url, parse_url(request.url));
  if (!url.same_origin(state_->origin))
    return invalid_argument("the request is for " + url.authority() + ", the connection for " +
                            state_->origin.authority());
  return state_->exchange(request, url, total_deadline(request), false);
}

Result<HttpReply> http_request(const HttpClientRequest& original) {
  HttpClientRequest request = original;
  const Deadline total = total_deadline(request);
  TESSERA_ASSIGN_OR_RETURN(Url url, parse_url(request.url));
  for (int redirects = 0;; ++redirects) {
    TESSERA_ASSIGN_OR_RETURN(auto connection, HttpClientConnection::open(url.to_string(), request.ca_file));
    const bool follow = redirects < request.max_redirects;
    TESSERA_ASSIGN_OR_RETURN(HttpReply reply, connection->state_->exchange(request, url, total, follow));
    if (!is_redirect(reply) || request.max_redirects == 0) return reply;
    if (!follow) return unavailable("more than " + std::to_string(request.max_redirects) + " redirects");
    TESSERA_ASSIGN_OR_RETURN(const Url next, resolve_url(url, *reply.header("location")));
    if (url.tls() && !next.tls())
      return Status(Code::kPermissionDenied, "a redirect leads from https to http");
    if (!next.same_origin(url))
      std::erase_if(request.headers, [](const auto& h) { return is_secret(h.first); });
    if (reply.status != 307 && reply.status != 308 && request.method != "HEAD") {
      request.method = "GET";
      request.body.clear();
    }
    url = next;
  }
}

}  // namespace tessera::net
