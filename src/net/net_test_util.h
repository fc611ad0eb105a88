// For tests of this folder: a server whose handler is a function, and a raw socket to speak to it with.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "net/http.h"

namespace tessera::net {

using namespace std::chrono_literals;

class FunctionHandler final : public HttpHandler {
 public:
  using Function = std::function<void(HttpRequest, std::shared_ptr<ResponseWriter>)>;
  explicit FunctionHandler(Function function) : function_(std::move(function)) {}
  void handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) override {
    function_(std::move(request), std::move(writer));
  }

 private:
  const Function function_;
};

struct TestServer {
  explicit TestServer(FunctionHandler::Function function, const ServerOptions& options = {})
      : handler(std::move(function)) {
    auto started = HttpServer::start(options, handler);
    if (!started.ok()) throw std::runtime_error(started.status().to_string());
    server = std::move(*started);
  }
  std::string url(std::string_view target) const {
    return "http://127.0.0.1:" + std::to_string(server->port()) + std::string(target);
  }

  FunctionHandler handler;
  std::unique_ptr<HttpServer> server;
};

// Answers "METHOD PATH?QUERY BODY" as text.
inline void echo(HttpRequest request, const std::shared_ptr<ResponseWriter>& writer) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = request.method + " " + request.path + "?" + request.query + " " + request.body;
  writer->send(std::move(response));
}

class RawClient {
 public:
  explicit RawClient(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // Reads until `enough` says so, the server closes, or the time is up; returns all that was read since the
  // start of the call.
  std::string read_until(const std::function<bool(const std::string&)>& enough,
                         std::chrono::milliseconds time = 5000ms) {
    std::string all;
    const auto end = std::chrono::steady_clock::now() + time;
    closed_ = false;
    while (!enough(all)) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      pollfd descriptor{fd_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&descriptor, 1, static_cast<int>(left.count())) <= 0) break;
      char buffer[65536];
      const ssize_t count = ::recv(fd_, buffer, sizeof(buffer), 0);
      if (count <= 0) {
        closed_ = true;
        break;
      }
      all.append(buffer, static_cast<size_t>(count));
    }
    return all;
  }
  std::string read_to_end(std::chrono::milliseconds time = 5000ms) {
    return read_until([](const std::string&) { return false; }, time);
  }
  std::string read_until_text(const std::string& text) {
    return read_until([&](const std::string& all) { return all.find(text) != std::string::npos; });
  }
  bool server_closed() const { return closed_; }  // seen by the last read
  void finish_sending() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void reset() {
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close();
  }
  int fd() const { return fd_; }

 private:
  int fd_;
  bool connected_ = false;
  bool closed_ = false;
};

inline bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds time = 5000ms) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

inline size_t count_of(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

}  // namespace tessera::net
