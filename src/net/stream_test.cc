#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <mutex>

#include "net/http_client.h"
#include "net/net_test_util.h"
#include "net/sse.h"

namespace tessera::net {
namespace {

constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

// Hands the writer of every request to the test.
struct HeldServer {
  explicit HeldServer(const ServerOptions& options = {}, bool begin = true)
      : test(
            [this, begin](HttpRequest, std::shared_ptr<ResponseWriter> writer) {
              writer->on_client_gone([this] { ++gone; });
              if (begin) writer->begin_stream(200, "text/event-stream");
              const std::lock_guard lock(mutex);
              held.push_back(std::move(writer));
            },
            options) {}
  std::shared_ptr<ResponseWriter> writer(size_t index = 0) {
    EXPECT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex);
      return held.size() > index;
    }));
    const std::lock_guard lock(mutex);
    return held.at(index);
  }

  std::atomic<int> gone{0};
  std::mutex mutex;
  std::vector<std::shared_ptr<ResponseWriter>> held;
  TestServer test;
};

TEST(Stream, ThousandsOfChunksStayInOrder) {
  ServerOptions options;
  options.io_threads = 2;
  options.max_buffered_bytes = 64 << 20;
  TestServer test(
      [](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
        std::thread([path = request.path, writer] {
          writer->begin_stream(200, "text/event-stream", {{"Cache-Control", "no-cache"}});
          for (int i = 0; i < 5000; ++i)
            ASSERT_TRUE(writer->write(sse_event(path + " " + std::to_string(i))));
          writer->end_stream();
        }).detach();
      },
      options);
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c)
    clients.emplace_back([&, c] {
      const std::string path = "/" + std::to_string(c);
      auto connection = *HttpClientConnection::open(test.url("/"));
      for (int round = 0; round < 2; ++round) {
        int next = 0;
        SseParser parser;
        HttpClientRequest request;
        request.url = test.url(path);
        request.on_body = [&](std::string_view bytes) {
          return parser
              .feed(
                  bytes,
                  [&](const SseEvent& event) { EXPECT_EQ(event.data, path + " " + std::to_string(next++)); })
              .ok();
        };
        const auto reply = connection->send(request);
        ASSERT_TRUE(reply.ok()) << reply.status().to_string();
        EXPECT_EQ(*reply->header("cache-control"), "no-cache");
        EXPECT_EQ(next, 5000);
      }
    });
  for (auto& client : clients) client.join();
  EXPECT_EQ(test.server->counters().accepted, 4u);
}

TEST(Stream, Http10StreamsEndWithTheConnection) {
  HeldServer server;
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  auto writer = server.writer();
  writer->write("one ");
  writer->write("two");
  writer->end_stream();
  const std::string answer = client.read_to_end();
  EXPECT_TRUE(client.server_closed());
  EXPECT_EQ(answer.find("chunked"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\none two")) << answer;
}

TEST(Stream, HalfClosedClientGetsItAll) {
  HeldServer server;
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send(kGet));
  client.finish_sending();
  auto writer = server.writer();
  std::this_thread::sleep_for(900ms);  // long enough for the probe
  EXPECT_FALSE(writer->client_gone());
  EXPECT_TRUE(writer->write("data: x\n\n"));
  writer->end_stream();
  const std::string answer = client.read_to_end();
  EXPECT_NE(answer.find("data: x\n\n"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("0\r\n\r\n")) << answer;
  EXPECT_EQ(server.gone, 0);
}

TEST(Stream, ClosedClientIsNoticedWithoutAnyToken) {
  for (const bool begun : {true, false}) {
    HeldServer server({}, begun);
    RawClient client(server.test.server->port());
    ASSERT_TRUE(client.send(kGet));
    auto writer = server.writer();
    if (begun) client.read_until_text("\r\n\r\n");
    client.close();
    EXPECT_TRUE(eventually([&] { return server.gone == 1; }, 2500ms)) << begun;
    EXPECT_TRUE(writer->client_gone());
    EXPECT_FALSE(writer->write("x"));
    EXPECT_TRUE(eventually([&] { return server.test.server->counters().open == 0; }));
  }
}

TEST(Stream, ResetClientIsNoticedAtOnce) {
  HeldServer server;
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send(kGet));
  auto writer = server.writer();
  client.reset();
  EXPECT_TRUE(eventually([&] { return server.gone == 1; }, 400ms));
  EXPECT_FALSE(writer->write("x"));
  std::atomic<bool> late{false};
  writer->on_client_gone([&] { late = true; });
  EXPECT_TRUE(late);
}

TEST(Stream, ClosedClientIsNoticedByTheNextTokens) {
  HeldServer server;
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send(kGet));
  auto writer = server.writer();
  client.close();
  EXPECT_TRUE(eventually([&] { return !writer->write("data: t\n\n"); }, 400ms));
  EXPECT_TRUE(eventually([&] { return server.gone == 1; }));
}

TEST(Stream, SlowReaderIsCutOff) {
  ServerOptions options;
  options.max_buffered_bytes = 256 << 10;
  HeldServer server(options);
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send(kGet));
  auto writer = server.writer();
  const std::string chunk(16 << 10, 'x');
  int accepted = 0;
  while (accepted < 4000 && writer->write(chunk)) {
    ++accepted;
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_LT(accepted, 4000);
  EXPECT_TRUE(writer->client_gone());
  EXPECT_TRUE(eventually([&] { return server.test.server->counters().open == 0; }));
  EXPECT_EQ(server.gone, 1);
}

TEST(Stream, StalledReaderMeetsTheWriteTimeout) {
  ServerOptions options;
  options.write_timeout = 200ms;
  options.max_buffered_bytes = 256 << 20;
  HeldServer server(options);
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send(kGet));
  server.writer()->write(std::string(64 << 20, 'x'));
  EXPECT_TRUE(eventually([&] { return server.gone == 1; }, 3000ms));
}

TEST(Stream, FinishedAnswersDoNotCallBack) {
  HeldServer server;
  RawClient client(server.test.server->port());
  ASSERT_TRUE(client.send(kGet));
  auto writer = server.writer();
  writer->write("data: x\n\n");
  writer->end_stream();
  client.read_until_text("\r\n0\r\n\r\n");
  client.close();
  EXPECT_TRUE(eventually([&] { return server.test.server->counters().open == 0; }));
  EXPECT_EQ(server.gone, 0);
}

uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST(Server, ManyIdleConnectionsAreCheap) {
  TestServer test(echo);  // raises the soft limit on files
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const size_t count = std::min<size_t>(2000, (limit.rlim_cur - 512) / 2);
  RawClient first(test.server->port());
  ASSERT_TRUE(first.send(kGet));
  first.read_until_text("GET /? ");
  const uint64_t before = resident_bytes();
  std::vector<std::unique_ptr<RawClient>> clients;
  for (size_t i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<RawClient>(test.server->port()));
    ASSERT_TRUE(clients.back()->connected()) << i;
    ASSERT_TRUE(clients.back()->send(kGet));
    ASSERT_NE(clients.back()->read_until_text("GET /? "), "") << i;
  }
  EXPECT_EQ(test.server->counters().open, count + 1);
  const uint64_t each = (resident_bytes() - before) / count;
  RecordProperty("bytes_per_idle_connection", static_cast<int>(each));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(each, 10240u);
#endif
  ASSERT_TRUE(clients[count / 2]->send(kGet));
  EXPECT_NE(clients[count / 2]->read_until_text("GET /? "), "");
}

}  // namespace
}  // namespace tessera::net
