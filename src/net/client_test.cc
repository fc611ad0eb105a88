#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <filesystem>

#include "base/files.h"
#include "net/http_client.h"
#include "net/net_test_util.h"

namespace tessera::net {
namespace {

HttpClientRequest get(const std::string& url) {
  HttpClientRequest request;
  request.url = url;
  return request;
}

TEST(Client, PostsAndReads) {
  TestServer test(echo);
  HttpClientRequest request = get(test.url("/x?y=z"));
  request.method = "POST";
  request.body = "payload";
  const auto reply = http_request(request);
  ASSERT_TRUE(reply.ok()) << reply.status().to_string();
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(reply->body, "POST /x?y=z payload");
  EXPECT_EQ(*reply->header("content-type"), "text/plain");
  request.method = "HEAD";
  request.body.clear();
  EXPECT_EQ(http_request(request)->body, "");
}

TEST(Client, KeepsOneConnection) {
  TestServer test(echo);
  auto connection = *HttpClientConnection::open(test.url("/"));
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(connection->send(get(test.url("/" + std::to_string(i))))->body,
              "GET /" + std::to_string(i) + "? ");
  EXPECT_EQ(test.server->counters().accepted, 1u);
  EXPECT_EQ(connection->send(get("http://127.0.0.1:1/")).status().code(), Code::kInvalidArgument);
}

TEST(Client, IsCancelledFromAnotherThreadWhileItWaits) {
  std::atomic<int> asked{0};
  std::shared_ptr<ResponseWriter> held;
  TestServer test([&](const HttpRequest& request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/echo") return echo(request, writer);
    held = std::move(writer);
    ++asked;
  });
  auto connection = *HttpClientConnection::open(test.url("/"));
  HttpClientRequest request = get(test.url("/hang"));
  request.canceller = std::make_shared<HttpCanceller>();
  std::thread other([&] {
    eventually([&] { return asked == 1; });
    request.canceller->cancel();
  });
  EXPECT_EQ(connection->send(request).status().code(), Code::kCancelled);
  other.join();
  EXPECT_TRUE(eventually([&] { return held->client_gone(); }));
  request.url = test.url("/echo");
  EXPECT_EQ(connection->send(request).status().code(), Code::kCancelled) << "a canceller is for one request";
  request.canceller = std::make_shared<HttpCanceller>();
  EXPECT_EQ(connection->send(request)->status, 200);
  request.canceller->cancel();  // too late
  EXPECT_EQ(connection->send(get(test.url("/echo")))->status, 200);
}

TEST(Client, ReconnectsAfterTheServerClosed) {
  ServerOptions options;
  options.idle_timeout = 100ms;
  TestServer test(echo, options);
  auto connection = *HttpClientConnection::open(test.url("/"));
  ASSERT_TRUE(connection->send(get(test.url("/"))).ok());
  ASSERT_TRUE(eventually([&] { return test.server->counters().open == 0; }));
  EXPECT_TRUE(connection->send(get(test.url("/"))).ok());
  EXPECT_EQ(test.server->counters().accepted, 2u);
}

// A server that takes the second request of each connection and closes without an answer.
class ForgetfulServer {
 public:
  ForgetfulServer() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    TESSERA_CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                      ::listen(listener_, 8) == 0 &&
                      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0,
                  "a listening socket");
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    thread_ = std::thread([this] { serve(); });
  }
  ~ForgetfulServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  const std::string& url() const { return url_; }
  int requests() const { return requests_; }

 private:
  void serve() {
    for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(fd)) {
      if (!take_request(fd)) continue;
      ::send(fd, kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL);
      take_request(fd);
    }
  }
  bool take_request(int fd) {
    std::string head;
    char byte;
    while (!head.ends_with("\r\n\r\n")) {
      if (::recv(fd, &byte, 1, 0) != 1) return false;
      head.push_back(byte);
    }
    ++requests_;
    return true;
  }

  static constexpr std::string_view kAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  int listener_;
  std::string url_;
  std::atomic<int> requests_ = 0;
  std::thread thread_;
};

TEST(Client, RepeatsOnlyARepeatableRequestThatAKeptConnectionSwallowed) {
  ForgetfulServer server;
  HttpClientRequest request = get(server.url());
  auto connection = *HttpClientConnection::open(server.url());
  ASSERT_TRUE(connection->send(request).ok());
  EXPECT_EQ(connection->send(request).status().code(), Code::kUnavailable);
  EXPECT_EQ(server.requests(), 2);
  ASSERT_TRUE(connection->send(request).ok());
  request.repeatable = true;
  const auto reply = connection->send(request);
  ASSERT_TRUE(reply.ok()) << reply.status().to_string();
  EXPECT_EQ(reply->body, "ok");
  EXPECT_EQ(server.requests(), 5);  // the fourth was lost and made again
}

TEST(Client, FollowsRedirectsWithoutLeakingSecrets) {
  TestServer target([](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    HttpResponse response;
    response.body =
        request.method + " " + request.body + (request.header("authorization") ? " secret" : " none");
    if (const auto* range = request.header("range")) response.body += " " + *range;
    writer->send(response);
  });
  TestServer test([&](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    HttpResponse response;
    response.status = request.path == "/keep" ? 307 : 302;
    if (request.path == "/loop") {
      response.headers.emplace_back("Location", "/loop");
    } else if (request.path == "/same") {
      response.headers.emplace_back("Location", "/end");
    } else if (request.path == "/end") {
      response.status = 200;
      response.body = request.header("authorization") ? "secret" : "none";
    } else {
      response.headers.emplace_back("Location", target.url("/t"));
    }
    writer->send(response);
  });
  HttpClientRequest request = get(test.url("/away"));
  request.headers.emplace_back("Authorization", "Bearer x");
  request.method = "POST";
  request.body = "b";
  request.range_from = 5;
  int heads = 0;
  request.on_head = [&](const HttpReply& head) { return head.status == 200 && ++heads; };
  auto reply = http_request(request);
  ASSERT_TRUE(reply.ok()) << reply.status().to_string();
  EXPECT_EQ(reply->body, "GET  none bytes=5-");
  EXPECT_EQ(reply->url, target.url("/t"));
  EXPECT_EQ(heads, 1);
  request.url = test.url("/keep");
  EXPECT_EQ(http_request(request)->body, "POST b none bytes=5-");
  request.url = test.url("/same");
  EXPECT_EQ(http_request(request)->body, "secret");
  EXPECT_EQ(http_request(get(test.url("/loop"))).status().code(), Code::kUnavailable);
  HttpClientRequest raw = get(test.url("/loop"));
  raw.max_redirects = 0;
  EXPECT_EQ(http_request(raw)->status, 302);
}

TEST(Client, StreamsAndCancels) {
  TestServer test([](HttpRequest, std::shared_ptr<ResponseWriter> writer) {
    std::thread([writer] {
      writer->begin_stream(200, "text/plain");
      for (int i = 0; i < 1000 && writer->write("tick "); ++i) std::this_thread::sleep_for(5ms);
      writer->end_stream();
    }).detach();
  });
  HttpClientRequest request = get(test.url("/"));
  int chunks = 0;
  const auto start = std::chrono::steady_clock::now();
  request.on_body = [&](std::string_view) { return ++chunks < 3; };
  EXPECT_EQ(http_request(request).status().code(), Code::kCancelled);
  EXPECT_EQ(chunks, 3);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 2s);
}

TEST(Client, DeadlinesAndBoundsHold) {
  std::vector<std::shared_ptr<ResponseWriter>> held;
  std::mutex mutex;
  TestServer test([&](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/large") {
      HttpResponse response;
      response.body = std::string(100000, 'x');
      return writer->send(response);
    }
    const std::lock_guard lock(mutex);
    held.push_back(std::move(writer));
  });
  HttpClientRequest request = get(test.url("/silent"));
  request.idle_timeout = 100ms;
  EXPECT_EQ(http_request(request).status().code(), Code::kDeadlineExceeded);
  request.idle_timeout = 10s;
  request.total_timeout = 100ms;
  EXPECT_EQ(http_request(request).status().code(), Code::kDeadlineExceeded);
  request = get(test.url("/large"));
  request.max_body_bytes = 1000;
  EXPECT_EQ(http_request(request).status().code(), Code::kResourceExhausted);
  request = get("http://127.0.0.1:1/");
  EXPECT_EQ(http_request(request).status().code(), Code::kUnavailable);
  request = get(test.url("/"));
  request.headers.emplace_back("X", "a\r\nInjected: b");
  EXPECT_EQ(http_request(request).status().code(), Code::kInvalidArgument);
}

// A server that says exactly these bytes and closes.
std::string serve_bytes(const std::string& bytes, Result<HttpReply>& reply) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::listen(listener, 1), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  std::string request;
  std::thread server([&] {
    const int fd = ::accept(listener, nullptr, nullptr);
    char buffer[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t count = ::recv(fd, buffer, sizeof(buffer), 0);
      if (count <= 0) break;
      request.append(buffer, static_cast<size_t>(count));
    }
    ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    ::close(fd);
  });
  reply = http_request(get("http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/"));
  server.join();
  ::close(listener);
  return request;
}

TEST(Client, ReadsWhatServersSend) {
  Result<HttpReply> reply = internal_error("not called");
  serve_bytes(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nto the end",
      reply);
  ASSERT_TRUE(reply.ok()) << reply.status().to_string();
  EXPECT_EQ(reply->body, "to the end");
  EXPECT_EQ(reply->header("link"), nullptr);
  for (const char* bad : {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "HTTP/1.1 200", "",
                          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"}) {
    serve_bytes(bad, reply);
    EXPECT_EQ(reply.status().code(), Code::kUnavailable) << bad;
  }
  for (const char* bad : {"garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                          "HTTP/1.1 101 Switching Protocols\r\n\r\n"}) {
    serve_bytes(bad, reply);
    EXPECT_EQ(reply.status().code(), Code::kCorrupt) << bad;
  }
}

// A self-signed certificate for localhost and 127.0.0.1, as PEM files in a folder that goes with it.
class SelfSigned {
 public:
  SelfSigned() {
    folder_ = std::filesystem::temp_directory_path() / ("tessera_tls_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    EVP_PKEY* const key = EVP_EC_gen("P-256");
    X509* const certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME* const name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"),
                               -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_EXTENSION* const names =
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    X509_add_ext(certificate, names, -1);
    X509_EXTENSION_free(names);
    X509_sign(certificate, key, EVP_sha256());
    BIO* bio = BIO_new_file(certificate_file().c_str(), "w");
    PEM_write_bio_X509(bio, certificate);
    BIO_free(bio);
    bio = BIO_new_file(key_file().c_str(), "w");
    PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
    BIO_free(bio);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  ~SelfSigned() { std::filesystem::remove_all(folder_); }
  std::string certificate_file() const { return (folder_ / "cert.pem").string(); }
  std::string key_file() const { return (folder_ / "key.pem").string(); }

 private:
  std::filesystem::path folder_;
};

TEST(Tls, VerifiesAndServes) {
  SelfSigned pair;
  ServerOptions options;
  options.tls_certificate = pair.certificate_file();
  options.tls_key = pair.key_file();
  options.header_timeout = 500ms;
  std::atomic<int> gone{0};
  std::atomic<bool> hold{false};
  std::shared_ptr<ResponseWriter> held;
  TestServer test(
      [&](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
        if (request.path == "/echo") return echo(std::move(request), writer);
        writer->on_client_gone([&] { ++gone; });
        writer->begin_stream(200, "text/event-stream");
        for (int i = 0; i < 2000; ++i) writer->write("data: " + std::to_string(i) + "\n\n");
        if (request.path == "/hold") {
          held = std::move(writer);
          hold = true;
        } else {
          writer->end_stream();
        }
      },
      options);
  const std::string base = "https://localhost:" + std::to_string(test.server->port());

  EXPECT_EQ(http_request(get(base + "/echo")).status().code(), Code::kPermissionDenied);

  auto connection = *HttpClientConnection::open(base, pair.certificate_file());
  HttpClientRequest request = get(base + "/echo");
  request.method = "POST";
  request.body = std::string(300000, 'b');
  for (int i = 0; i < 3; ++i) {
    const auto reply = connection->send(request);
    ASSERT_TRUE(reply.ok()) << reply.status().to_string();
    EXPECT_EQ(reply->body.size(), request.body.size() + 12);
  }
  const auto stream = connection->send(get(base + "/stream"));
  ASSERT_TRUE(stream.ok()) << stream.status().to_string();
  EXPECT_NE(stream->body.find("data: 1999\n\n"), std::string::npos);

  // Leaves in the middle of a stream.
  HttpClientRequest leave = get("https://127.0.0.1:" + std::to_string(test.server->port()) + "/hold");
  leave.ca_file = pair.certificate_file();
  leave.on_body = [&](std::string_view) { return false; };
  EXPECT_EQ(http_request(leave).status().code(), Code::kCancelled);
  EXPECT_TRUE(eventually([&] { return hold && gone == 1; }, 2000ms));

  // Plain text, and silence, end without harm.
  RawClient plain(test.server->port());
  plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  plain.read_to_end(2000ms);
  EXPECT_TRUE(plain.server_closed());
  RawClient silent(test.server->port());
  silent.read_to_end(2000ms);
  EXPECT_TRUE(silent.server_closed());
  HttpClientRequest closing = get(base + "/echo");
  closing.ca_file = pair.certificate_file();
  closing.headers.emplace_back("Connection", "close");
  EXPECT_EQ(http_request(closing)->status, 200);
}

}  // namespace
}  // namespace tessera::net
