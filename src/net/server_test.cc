#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "net/net_test_util.h"

namespace tessera::net {
namespace {

constexpr std::string_view kGet = "GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\n\r\n";

std::string body_of(const std::string& answer) {
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

void expect_refusal(const std::string& answer, int status) {
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + std::to_string(status) + " ")) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos) << answer;
  EXPECT_NE(answer.find("X-Request-Id: "), std::string::npos) << answer;
  const auto json = parse_json(body_of(answer));
  ASSERT_TRUE(json.ok()) << answer;
  EXPECT_TRUE((*json)["error"]["message"].is_string());
  EXPECT_TRUE((*json)["error"]["type"].is_string());
  EXPECT_TRUE((*json)["error"]["param"].is_null());
  EXPECT_TRUE((*json)["error"]["code"].is_null());
}

TEST(Server, KeepsAliveAndDecodesThePath) {
  TestServer test(echo);
  RawClient client(test.server->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send(kGet));
    const std::string answer = client.read_until_text("GET /a b?x=1 ");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_NE(answer.find("Content-Length: 13\r\n"), std::string::npos) << answer;
    EXPECT_NE(answer.find("Date: "), std::string::npos);
    EXPECT_EQ(answer.find("Connection: close"), std::string::npos);
  }
  const ServerCounters counters = test.server->counters();
  EXPECT_EQ(counters.accepted, 1u);
  EXPECT_EQ(counters.requests, 3u);
  EXPECT_EQ(counters.open, 1u);
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  // Later requests are answered faster, by other threads.
  TestServer test([](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    const int delay = request.path == "/0" ? 60 : 0;
    std::thread([path = request.path, writer, delay] {
      std::this_thread::sleep_for(std::chrono::milliseconds(delay));
      HttpResponse response;
      response.body = "<" + path + ">";
      writer->send(response);
    }).detach();
  });
  RawClient client(test.server->port());
  std::string all;
  for (int i = 0; i < 20; ++i) all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n";
  ASSERT_TRUE(client.send(all));
  const std::string answers = client.read_until_text("</19>");
  size_t at = 0;
  for (int i = 0; i < 20; ++i) {
    const size_t next = answers.find("</" + std::to_string(i) + ">");
    ASSERT_NE(next, std::string::npos) << i;
    EXPECT_GE(next, at);
    at = next;
  }
}

TEST(Server, TakesChunkedBodiesByteByByte) {
  TestServer test(echo);
  RawClient client(test.server->port());
  const std::string request =
      "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n"
      "0\r\nX-Request-Id: from-trailer\r\n\r\n";
  for (const char c : request) ASSERT_TRUE(client.send({&c, 1}));
  const std::string answer = client.read_until_text("hello world");
  EXPECT_NE(answer.find("POST /p? hello world"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("from-trailer"), std::string::npos) << answer;
}

TEST(Server, InvitesTheBodyOfAnExpectingClient) {
  TestServer test(echo);
  RawClient client(test.server->port());
  ASSERT_TRUE(
      client.send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
  EXPECT_EQ(client.read_until_text("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  ASSERT_TRUE(client.send("hello"));
  EXPECT_NE(client.read_until_text("hello").find("POST /p? hello"), std::string::npos);
  ASSERT_TRUE(client.send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n"));
  expect_refusal(client.read_to_end(), 417);
}

TEST(Server, HeadHasNoBody) {
  TestServer test(echo);
  RawClient client(test.server->port());
  ASSERT_TRUE(client.send("HEAD /h HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
  const std::string answer = client.read_to_end();
  EXPECT_NE(answer.find("Content-Length: 9\r\n"), std::string::npos) << answer;
  EXPECT_EQ(body_of(answer), "");
}

TEST(Server, CarriesTheRequestId) {
  TestServer test([](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    HttpResponse response;
    response.body = "id=" + request.id + ";";
    response.headers.emplace_back("X-Evil", "a\r\nSet-Cookie: b");
    writer->send(response);
  });
  RawClient client(test.server->port());
  ASSERT_TRUE(client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: abc-1.2\r\n\r\n"));
  const std::string own = client.read_until_text(";");
  EXPECT_NE(own.find("X-Request-Id: abc-1.2\r\n"), std::string::npos) << own;
  EXPECT_NE(own.find("id=abc-1.2;"), std::string::npos) << own;
  EXPECT_EQ(own.find("\r\nSet-Cookie"), std::string::npos) << own;
  ASSERT_TRUE(client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: a b\"c\r\n\r\n"));
  EXPECT_NE(client.read_until_text(";").find("X-Request-Id: req_"), std::string::npos);
}

TEST(Server, RefusesWhatItMustNotGuess) {
  TestServer test(echo);
  const std::vector<std::pair<std::string, int>> cases = {
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -3\r\n\r\nabc", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(100000, 'x'), 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n", 400},
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(70000, 'x') + "\r\n\r\n", 431},
      {"GET /" + std::string(70000, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
  };
  for (const auto& [bytes, status] : cases) {
    SCOPED_TRACE(bytes.substr(0, 80));
    RawClient client(test.server->port());
    client.send(bytes);
    const std::string answer = client.read_to_end();
    expect_refusal(answer, status);
    EXPECT_TRUE(client.server_closed());
  }
  EXPECT_EQ(test.server->counters().rejected, cases.size());
  EXPECT_EQ(test.server->counters().requests, 0u);
}

TEST(Server, RefusesLargeBodiesReadably) {
  ServerOptions options;
  options.max_body_bytes = 100000;
  TestServer test(echo, options);
  const std::string body(3000000, 'x');
  for (const bool chunked : {false, true}) {
    RawClient client(test.server->port());
    std::string head = "POST / HTTP/1.1\r\nHost: h\r\n";
    head += chunked ? "Transfer-Encoding: chunked\r\n\r\n2dc6c0\r\n" : "Content-Length: 3000000\r\n\r\n";
    client.send(head);
    client.send(body);  // the answer must survive the bytes that nobody wanted
    expect_refusal(client.read_to_end(), 413);
  }
}

TEST(Server, AnswersHalfClosedClients) {
  TestServer test([](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    std::thread([request, writer] {
      std::this_thread::sleep_for(100ms);
      echo(request, writer);
    }).detach();
  });
  RawClient client(test.server->port());
  ASSERT_TRUE(client.send(std::string(kGet) + std::string(kGet)));
  client.finish_sending();
  const std::string answer = client.read_to_end();
  EXPECT_EQ(count_of(answer, "HTTP/1.1 200 OK"), 2u) << answer;
  EXPECT_TRUE(client.server_closed());
}

TEST(Server, SlowHeadersGet408AndIdleOnesAreClosed) {
  ServerOptions options;
  options.header_timeout = 150ms;
  options.body_timeout = 300ms;
  options.idle_timeout = 400ms;
  TestServer test(echo, options);
  RawClient slow_header(test.server->port());
  RawClient slow_body(test.server->port());
  RawClient idle(test.server->port());
  ASSERT_TRUE(slow_header.send("GET / HTTP/1.1\r\nHost:"));
  ASSERT_TRUE(slow_body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"));
  expect_refusal(slow_header.read_to_end(3000ms), 408);
  expect_refusal(slow_body.read_to_end(3000ms), 408);
  EXPECT_EQ(idle.read_to_end(3000ms), "");
  EXPECT_TRUE(idle.server_closed());
}

TEST(Server, TooManyConnectionsAreTold) {
  ServerOptions options;
  options.max_connections = 2;
  TestServer test(echo, options);
  RawClient first(test.server->port());
  RawClient second(test.server->port());
  for (RawClient* client : {&first, &second}) {
    ASSERT_TRUE(client->send(kGet));
    client->read_until_text("GET /a b?x=1 ");
  }
  RawClient third(test.server->port());
  third.send(kGet);
  const std::string refusal = third.read_to_end();
  expect_refusal(refusal, 503);
  EXPECT_NE(refusal.find("Retry-After: 1\r\n"), std::string::npos);
  EXPECT_EQ(test.server->counters().refused, 1u);
  first.close();
  third.close();
  ASSERT_TRUE(eventually([&] { return test.server->counters().open == 1; }));
  RawClient fourth(test.server->port());
  ASSERT_TRUE(fourth.send(kGet));
  EXPECT_NE(fourth.read_until_text("GET /a b?x=1 ").find("200 OK"), std::string::npos);
}

TEST(Server, UnansweredRequestsGet500) {
  TestServer test([](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/throw") throw std::runtime_error("handler bug");
    if (request.path == "/broken-stream") {
      writer->begin_stream(200, "text/plain");
      writer->write("half");
    }
  });
  RawClient client(test.server->port());
  for (const char* path : {"/forgotten", "/throw"}) {
    ASSERT_TRUE(client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: h\r\n\r\n"));
    const std::string answer = client.read_until_text("\"code\"");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 500 ")) << answer;
    EXPECT_NE(answer.find("server_error"), std::string::npos) << answer;
  }
  RawClient broken(test.server->port());
  ASSERT_TRUE(broken.send("GET /broken-stream HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_EQ(broken.read_to_end().find("\r\n0\r\n"), std::string::npos);
  EXPECT_TRUE(broken.server_closed());
}

TEST(Server, DrainsThenStops) {
  std::atomic<bool> release{false};
  TestServer test([&](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path != "/slow") return echo(request, writer);
    std::thread([&release, request, writer] {
      while (!release) std::this_thread::sleep_for(5ms);
      echo(request, writer);
    }).detach();
  });
  RawClient idle(test.server->port());
  ASSERT_TRUE(idle.send(kGet));
  idle.read_until_text("GET /a b?x=1 ");
  RawClient slow(test.server->port());
  ASSERT_TRUE(slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"));
  ASSERT_TRUE(eventually([&] { return test.server->counters().requests == 2; }));
  test.server->stop_accepting();
  EXPECT_EQ(idle.read_to_end(), "");
  EXPECT_TRUE(idle.server_closed());
  EXPECT_FALSE(test.server->wait_idle(50ms));
  ASSERT_TRUE(eventually([&] { return !RawClient(test.server->port()).connected(); }));
  release = true;
  const std::string answer = slow.read_to_end();
  EXPECT_NE(answer.find("Connection: close"), std::string::npos) << answer;
  EXPECT_NE(answer.find("GET /slow? "), std::string::npos) << answer;
  slow.close();
  EXPECT_TRUE(test.server->wait_idle(3000ms));
  test.server->stop();
}

TEST(Server, WriterOutlivesTheServer) {
  std::shared_ptr<ResponseWriter> kept;
  std::atomic<int> gone{0};
  {
    TestServer test([&](HttpRequest, std::shared_ptr<ResponseWriter> writer) {
      writer->on_client_gone([&] { ++gone; });
      kept = std::move(writer);
    });
    RawClient client(test.server->port());
    ASSERT_TRUE(client.send(kGet));
    ASSERT_TRUE(eventually([&] { return test.server->counters().requests == 1; }));
    test.server->stop();
  }
  EXPECT_EQ(gone, 1);
  EXPECT_TRUE(kept->client_gone());
  kept->send({});
  EXPECT_FALSE(kept->write("x"));
}

TEST(Server, BadOptionsAreNamed) {
  FunctionHandler handler(echo);
  ServerOptions options;
  options.host = "256.1.1.1";
  EXPECT_EQ(HttpServer::start(options, handler).status().code(), Code::kInvalidArgument);
  options = {};
  options.tls_certificate = "/nowhere/cert.pem";
  EXPECT_EQ(HttpServer::start(options, handler).status().code(), Code::kInvalidArgument);
  options.tls_key = "/nowhere/key.pem";
  EXPECT_NE(HttpServer::start(options, handler).status().message().find("/nowhere/cert.pem"),
            std::string::npos);
  TestServer other(echo);
  options = {};
  options.port = other.server->port();
  EXPECT_EQ(HttpServer::start(options, handler).status().code(), Code::kIo);
}

TEST(Server, SurvivesGarbage) {
  TestServer test(echo);
  uint64_t state = 42;
  auto random = [&state] {
    return static_cast<uint32_t>((state = state * 6364136223846793005u + 1442695040888963407u) >> 33);
  };
  const std::string seed =
      "POST /v1/x?a=%41 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: "
      "100-continue\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    if (round % 3 == 0) {
      for (int i = random() % 500; i >= 0; --i) bytes += static_cast<char>(random());
    } else {
      bytes = seed + seed;
      for (int i = random() % 8; i >= 0; --i) bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    RawClient client(test.server->port());
    client.send(bytes);
    client.finish_sending();
    client.read_to_end(3000ms);
    EXPECT_TRUE(client.server_closed()) << round;
  }
  RawClient client(test.server->port());
  ASSERT_TRUE(client.send(kGet));
  EXPECT_NE(client.read_until_text("GET /a b?x=1 ").find("200 OK"), std::string::npos);
}

}  // namespace
}  // namespace tessera::net
