#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/mutex.h"
#include "wire/codec_samples.h"
#include "wire/peer_links.h"
#include "wire/wire_test_util.h"

namespace tessera::wire {
namespace {

using ::testing::HasSubstr;

class Inbox final : public PeerHandler {
 public:
  void on_message(const std::string& peer, std::string to, Message message) override {
    if (forward) forward(to, message);
    MutexLock lock(mutex_);
    peers_.push_back(peer);
    sessions_.push_back(session_of(message));
    bytes_ += std::holds_alternative<Rows>(message) ? std::get<Rows>(message).hidden.size() * 4 : 0;
    last_to_ = std::move(to);
  }
  Result<std::string> read_file(const std::string& peer, const std::string&, const std::string&, uint64_t,
                                uint64_t length) override {
    return std::string(length, peer[0]);
  }
  Result<std::string> manifest(const std::string&, const std::string&) override { return std::string("{}"); }

  size_t count() {
    MutexLock lock(mutex_);
    return sessions_.size();
  }
  std::vector<SessionId> sessions() {
    MutexLock lock(mutex_);
    return sessions_;
  }
  std::string last_peer() {
    MutexLock lock(mutex_);
    return peers_.empty() ? "" : peers_.back();
  }
  std::string last_to() {
    MutexLock lock(mutex_);
    return last_to_;
  }
  std::function<void(const std::string&, const Message&)> forward;  // set before traffic

 private:
  Mutex mutex_;
  std::vector<std::string> peers_;
  std::vector<SessionId> sessions_;
  uint64_t bytes_ = 0;
  std::string last_to_;
};

class Events final : public PeerEvents {
 public:
  void undelivered(const std::string& peer, const std::string& to, Message message,
                   const Status& why) override {
    MutexLock lock(mutex_);
    undelivered_.push_back({peer, to, session_of(message), why});
  }
  void down(const std::string&, const Status&) override { ++downs; }
  struct Lost {
    std::string peer, to;
    SessionId session;
    Status why;
  };
  std::vector<Lost> lost() {
    MutexLock lock(mutex_);
    return undelivered_;
  }
  std::atomic<int> downs{0};

 private:
  Mutex mutex_;
  std::vector<Lost> undelivered_;
};

class PeerTest : public WireTest {
 protected:
  std::unique_ptr<PeerServer> serve(const std::string& name, Inbox& inbox,
                                    const std::string& listen = "127.0.0.1:0") {
    auto server = PeerServer::start(listen, identity(name), inbox, quick_options());
    EXPECT_TRUE(server.ok()) << server.status().message();
    return server.ok() ? *std::move(server) : nullptr;
  }
  static std::string address_of(const PeerServer& server) {
    return "127.0.0.1:" + std::to_string(server.port());
  }
};

TEST_F(PeerTest, MessagesArriveInOrderWithTheSendersName) {
  Inbox inbox;
  Events events;
  auto server = serve("beta", inbox);
  auto links = PeerLinks::create(identity("alpha"), 1, events, quick_options());
  ASSERT_TRUE(links->learn("beta", "127.0.0.1:1," + address_of(*server)).ok());
  EXPECT_EQ(links->learn("beta", "nowhere").code(), Code::kInvalidArgument);
  constexpr SessionId kCount = 100'000;
  for (SessionId i = 0; i < kCount; ++i) links->send("beta/7", CloseSession{i, 1});
  ASSERT_TRUE(eventually([&] { return inbox.count() == kCount; }, std::chrono::seconds(60)));
  const auto sessions = inbox.sessions();
  for (SessionId i = 0; i < kCount; ++i) ASSERT_EQ(sessions[i], i);
  EXPECT_EQ(inbox.last_peer(), "alpha");
  EXPECT_EQ(inbox.last_to(), "beta/7");
  EXPECT_TRUE(events.lost().empty());
}

TEST_F(PeerTest, AnUnreachablePeersMessagesComeBack) {
  Events events;
  auto links = PeerLinks::create(identity("alpha"), 1, events, quick_options());
  links->send("gamma/1", samples::rows());  // no address
  ASSERT_TRUE(eventually([&] { return events.lost().size() == 1; }));
  ASSERT_TRUE(links->learn("beta", "127.0.0.1:1").ok());
  links->send("beta/1", samples::rows());
  ASSERT_TRUE(eventually([&] { return events.lost().size() == 2; }));
  const auto lost = events.lost()[1];
  EXPECT_EQ(lost.peer, "beta");
  EXPECT_EQ(lost.to, "beta/1");
  EXPECT_EQ(lost.session, samples::rows().session);
  EXPECT_EQ(lost.why.code(), Code::kUnavailable);
  EXPECT_EQ(events.downs, 0);
}

TEST_F(PeerTest, ALinkBreaksAndComesBack) {
  Inbox inbox;
  Events events;
  auto server = serve("beta", inbox);
  const std::string address = address_of(*server);
  auto links = PeerLinks::create(identity("alpha"), 1, events, quick_options());
  ASSERT_TRUE(links->learn("beta", address).ok());
  links->send("beta", CloseSession{1, 1});
  ASSERT_TRUE(eventually([&] { return inbox.count() == 1; }));
  const auto begin = std::chrono::steady_clock::now();
  server.reset();
  ASSERT_TRUE(eventually([&] { return events.downs == 1; }));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1500));
  links->send("beta", CloseSession{2, 1});
  ASSERT_TRUE(eventually([&] { return events.lost().size() == 1; }));
  server = serve("beta", inbox, address);
  ASSERT_NE(server, nullptr);
  ASSERT_TRUE(eventually([&] {
    links->send("beta", CloseSession{3, 1});
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return inbox.last_peer() == "alpha" && inbox.sessions().back() == 3;
  }));
}

TEST_F(PeerTest, APeerOfAnotherNameOrAuthorityIsNotSpokenTo) {
  Inbox inbox;
  auto server = serve("beta", inbox);
  {
    Events events;
    auto links = PeerLinks::create(identity("alpha"), 1, events, quick_options());
    ASSERT_TRUE(links->learn("gamma", address_of(*server)).ok());  // beta answers there
    links->send("gamma/1", samples::rows());
    ASSERT_TRUE(eventually([&] { return events.lost().size() == 1; }));
  }
  auto strangers = CertificateAuthority::open(folder_ / "other", std::time(nullptr));
  Identity forged = identity_from(*strangers, "alpha", std::time(nullptr));
  forged.ca_pem = authority_->certificate_pem();
  Events events;
  auto links = PeerLinks::create(forged, 1, events, quick_options());
  ASSERT_TRUE(links->learn("beta", address_of(*server)).ok());
  links->send("beta/1", samples::rows());
  ASSERT_TRUE(eventually([&] { return events.lost().size() == 1; }));
  EXPECT_EQ(inbox.count(), 0u);
}

TEST_F(PeerTest, ASlowReaderBoundsTheSendersMemory) {
  Inbox inbox;
  std::atomic<bool> release{false};
  inbox.forward = [&](const std::string&, const Message&) {
    while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  Events events;
  auto server = serve("beta", inbox);
  LinkOptions small = quick_options();
  small.max_queue_bytes = 4 << 20;
  auto links = PeerLinks::create(identity("alpha"), 1, events, small);
  ASSERT_TRUE(links->learn("beta", address_of(*server)).ok());
  Rows rows = samples::rows();
  rows.tokens.assign(64, 1);
  rows.hidden.assign(64 * 1024, 1.0f);
  int sent = 0;
  ASSERT_TRUE(eventually([&] {
    ++sent;
    links->send("beta/1", rows);
    return !events.lost().empty();
  }));
  EXPECT_LT(sent, 300);
  EXPECT_EQ(events.lost()[0].why.code(), Code::kResourceExhausted);
  release = true;
}

TEST_F(PeerTest, LinksAreMeasured) {
  Inbox inbox;
  Events events;
  auto server = serve("beta", inbox);
  auto links = PeerLinks::create(identity("alpha"), 1, events, quick_options());
  ASSERT_TRUE(links->learn("beta", address_of(*server)).ok());
  links->probe("beta");
  ASSERT_TRUE(eventually([&] {
    const auto reports = links->reports();
    return reports.size() == 1 && reports[0].rtt_s > 0 && reports[0].bytes_per_s > 0;
  }));
  const auto report = links->reports()[0];
  EXPECT_EQ(report.peer, "beta");
  EXPECT_LT(report.rtt_s, 1.0);
  EXPECT_GT(report.bytes_per_s, 1e6);
  links->forget("beta");
  EXPECT_TRUE(links->reports().empty());
}

TEST_F(PeerTest, FilesOfAPeer) {
  Inbox inbox;
  auto server = serve("beta", inbox);
  auto files = RemoteFiles::open(address_of(*server), identity("alpha"), "beta", quick_options());
  std::string got;
  ASSERT_TRUE((*files)
                  ->read(
                      "m", "f", 0, 600'000,
                      [&](std::string_view b) {
                        got += b;
                        return Status();
                      },
                      std::chrono::milliseconds(5000))
                  .ok());
  EXPECT_EQ(got, std::string(600'000, 'a'));
}

// A peer whose process or network stops without a word: connections stay open, nothing comes any more.
class SilentRelay {
 public:
  explicit SilentRelay(int target_port) : target_port_(target_port) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 8), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~SilentRelay() {
    stop_ = true;
    thread_.join();
    ::close(listener_);
    for (const auto& [from, to] : pairs_) ::close(from);
  }
  int port() const { return port_; }
  std::atomic<bool> silent{false};

 private:
  static sockaddr_in loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    return address;
  }
  void run() {
    while (!stop_) {
      std::vector<pollfd> polled{{listener_, POLLIN, 0}};
      for (const auto& [from, to] : pairs_) polled.push_back({from, POLLIN, 0});
      if (::poll(polled.data(), silent ? 0 : polled.size(), 5) <= 0 || silent) continue;
      if (polled[0].revents != 0) accept_one();
      for (size_t i = 1; i < polled.size(); ++i)
        if (polled[i].revents != 0) forward(polled[i].fd, pairs_[i - 1].second);
    }
  }
  void accept_one() {
    const int client = ::accept(listener_, nullptr, nullptr);
    const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(target_port_);
    if (::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return;
    pairs_.emplace_back(client, server);
    pairs_.emplace_back(server, client);
  }
  static void forward(int from, int to) {
    char buffer[16384];
    const ssize_t got = ::read(from, buffer, sizeof buffer);
    for (ssize_t at = 0; at < got;) {
      const ssize_t put = ::send(to, buffer + at, static_cast<size_t>(got - at), MSG_NOSIGNAL);
      if (put <= 0) return;
      at += put;
    }
  }

  const int target_port_;
  int listener_ = -1, port_ = 0;
  std::vector<std::pair<int, int>> pairs_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_F(PeerTest, ASilentPeerIsNoticedByItsKeepalive) {
  Inbox inbox;
  Events events;
  auto server = serve("beta", inbox);
  SilentRelay relay(server->port());
  LinkOptions options = quick_options();
  options.keepalive_time = std::chrono::milliseconds(300);
  options.keepalive_timeout = std::chrono::milliseconds(300);
  options.connect_timeout = std::chrono::milliseconds(500);
  auto links = PeerLinks::create(identity("alpha"), 1, events, options);
  ASSERT_TRUE(links->learn("beta", "127.0.0.1:" + std::to_string(relay.port())).ok());
  links->send("beta", CloseSession{1, 1});
  ASSERT_TRUE(eventually([&] { return inbox.count() == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(events.downs, 0);  // idle is not silent
  relay.silent = true;
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(eventually([&] { return events.downs == 1; }));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  links->send("beta", CloseSession{2, 1});  // accepted by nobody: the attempt ends by its timeout
  EXPECT_TRUE(eventually([&] { return events.lost().size() == 1; }));
}

// One hop there and one back over loopback, with TLS, a row of 2048 float32: prints what a hop costs.
TEST_F(PeerTest, TheCostOfAHop) {
  Inbox at_beta, at_alpha;
  Events events;
  auto beta = serve("beta", at_beta), alpha = serve("alpha", at_alpha);
  auto to_beta = PeerLinks::create(identity("alpha"), 1, events, quick_options());
  auto to_alpha = PeerLinks::create(identity("beta"), 1, events, quick_options());
  ASSERT_TRUE(to_beta->learn("beta", address_of(*beta)).ok());
  ASSERT_TRUE(to_alpha->learn("alpha", address_of(*alpha)).ok());
  at_beta.forward = [&](const std::string&, const Message& message) { to_alpha->send("alpha/1", message); };
  std::atomic<int> back{0};
  at_alpha.forward = [&](const std::string&, const Message&) {
    ++back;
    back.notify_one();
  };
  Rows rows = samples::rows();
  rows.tokens = {1};
  rows.hidden.assign(2048, 0.5f);
  std::vector<double> microseconds;
  for (int i = 0; i < 1000; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    to_beta->send("beta/1", rows);
    back.wait(i);
    ASSERT_EQ(back, i + 1);
    microseconds.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / 2);
  }
  std::sort(microseconds.begin(), microseconds.end());
  std::printf("one hop, 8 KiB row, TLS, loopback: p50 %.0f us, p99 %.0f us\n", microseconds[500],
              microseconds[990]);
  EXPECT_TRUE(events.lost().empty());
}

}  // namespace
}  // namespace tessera::wire
