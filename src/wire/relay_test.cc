// Tunnels with real sockets, streams and certificates on the loopback interface.
#include "wire/relay.h"

#include <gmock/gmock.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>

#include "wire/control_client.h"
#include "wire/control_server.h"
#include "wire/peer_links.h"
#include "wire/socket.h"
#include "wire/wire_test_util.h"

namespace tessera::wire {
namespace {

using ::testing::HasSubstr;
using SteadyClock = std::chrono::steady_clock;

// A gateway where the workers of `attached` are attached.
class Gateway final : public ControlHandler {
 public:
  Result<Membership> join(const JoinRequest&) override { return not_found("nobody joins here"); }
  Result<Membership> renew(const std::string&, const std::string&) override { return not_found("no"); }
  Result<Membership> renew_expired(const std::string&, const std::string&) override {
    return not_found("no");
  }
  bool may_relay(const std::string& worker) override {
    MutexLock lock(mutex_);
    return attached_.count(worker) > 0;
  }
  void on_attach(std::shared_ptr<WorkerStream>, Hello) override {}
  void on_control(WorkerStream&, ControlMessage) override {}
  void on_message(WorkerStream&, std::string, Message) override {}
  void on_detach(WorkerStream&, const Status&) override {}
  Result<std::string> read_file(const std::string&, const std::string&, const std::string&, uint64_t,
                                uint64_t) override {
    return not_found("no");
  }
  Result<std::string> manifest(const std::string&, const std::string&) override { return not_found("no"); }

  void attach(const std::string& worker) {
    MutexLock lock(mutex_);
    attached_.insert(worker);
  }
  void detach(const std::string& worker) {
    MutexLock lock(mutex_);
    attached_.erase(worker);
  }

 private:
  Mutex mutex_;
  std::set<std::string> attached_;
};

Socket dial(const Address& address) {
  auto socket = connect_to(address, SteadyClock::now() + std::chrono::seconds(5));
  EXPECT_TRUE(socket.ok()) << socket.status().message();
  if (!socket.ok()) return Socket();
  make_blocking(*socket);
  return *std::move(socket);
}
Socket accept_one(const Socket& listening) {
  EXPECT_TRUE(listening.wait(POLLIN, SteadyClock::now() + std::chrono::seconds(10))) << "no tunnel came";
  Socket socket(::accept4(listening.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) make_blocking(socket);
  return socket;
}
std::string receive(const Socket& socket, size_t size) {
  std::string all(size, '\0');
  for (size_t done = 0; done < size;) {
    if (!socket.wait(POLLIN, SteadyClock::now() + std::chrono::seconds(20))) return "nothing came";
    const ssize_t got = ::recv(socket.fd(), all.data() + done, size - done, 0);
    if (got <= 0) return all.substr(0, done);
    done += static_cast<size_t>(got);
  }
  return all;
}
bool is_closed(const Socket& socket) {
  char byte = 0;
  return socket.wait(POLLIN, SteadyClock::now() + std::chrono::seconds(20)) &&
         ::recv(socket.fd(), &byte, 1, 0) <= 0;
}

class RelayTest : public WireTest {
 protected:
  RelayTest() {
    limits_.accept_timeout = std::chrono::milliseconds(1000);
    limits_.absence = std::chrono::milliseconds(400);
    start("127.0.0.1:0");
    auto listening = listen_on_loopback(&target_.port);
    EXPECT_TRUE(listening.ok());
    listening_ = *std::move(listening);
    target_.host = "127.0.0.1";
    gateway_handler_.attach("alpha");
    gateway_handler_.attach("beta");
    alpha_ = client("alpha");
    beta_ = client("beta");
    beta_->accept_to(target_);
  }
  void start(const std::string& listen) {
    server_.reset();
    auto server = ControlServer::start(listen, gateway_, gateway_handler_, quick_options(), limits_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    address_ = "127.0.0.1:" + std::to_string(server_->port());
  }
  std::unique_ptr<RelayClient> client(const std::string& name) {
    auto client = RelayClient::create(address_, identity(name), quick_options());
    EXPECT_TRUE(client.ok());
    return *std::move(client);
  }
  // Both ends of a new tunnel from alpha to beta; beta may just not listen yet.
  std::pair<Socket, Socket> tunnel() {
    const auto deadline = SteadyClock::now() + std::chrono::seconds(20);
    while (SteadyClock::now() < deadline) {
      Socket near = dial(*alpha_->dial("beta"));
      // Refused ones are closed; whatever comes to beta's server is this one.
      while (SteadyClock::now() < deadline && !near.wait(POLLIN, SteadyClock::now()))
        if (listening_.wait(POLLIN, SteadyClock::now() + std::chrono::milliseconds(5)))
          return {std::move(near), accept_one(listening_)};
    }
    ADD_FAILURE() << "no tunnel: " << alpha_->failure("beta").message();
    return std::pair<Socket, Socket>();
  }

  RelayLimits limits_;
  Gateway gateway_handler_;
  std::unique_ptr<ControlServer> server_;
  std::string address_;
  Address target_;
  Socket listening_;
  std::unique_ptr<RelayClient> alpha_, beta_;
};

TEST_F(RelayTest, BytesPassBothWaysAndTheEndPassesToo) {
  auto [near, far] = tunnel();
  ASSERT_TRUE(near.send_all("ping"));
  EXPECT_EQ(receive(far, 4), "ping");
  ASSERT_TRUE(far.send_all("pong!"));
  EXPECT_EQ(receive(near, 5), "pong!");
  EXPECT_EQ(server_->relay_stats().open, 1u);
  EXPECT_GE(server_->relay_stats().bytes, 9u);
  ASSERT_TRUE(far.send_all("last words"));
  far.shut_down();
  EXPECT_EQ(receive(near, 10), "last words");
  EXPECT_TRUE(is_closed(near));
  EXPECT_TRUE(eventually([&] { return server_->relay_stats().open == 0; }));

  auto [near2, far2] = tunnel();
  near2.shut_down();
  EXPECT_TRUE(is_closed(far2));
  EXPECT_TRUE(eventually([&] { return server_->relay_stats().open == 0; }));
}

TEST_F(RelayTest, AHundredMegabytesArriveIntact) {
  auto ends = tunnel();
  constexpr size_t kBlock = 1'000'003, kBlocks = 100;
  std::string block(kBlock, '\0');
  for (size_t i = 0; i < kBlock; ++i) block[i] = static_cast<char>(i * 2654435761u >> 13);
  std::thread writer([&] {
    for (size_t i = 0; i < kBlocks; ++i) {
      block[0] = static_cast<char>(i);
      if (!ends.first.send_all(block)) return;
    }
  });
  bool intact = true;
  for (size_t i = 0; i < kBlocks && intact; ++i) {
    const std::string got = receive(ends.second, kBlock);
    intact = got.size() == kBlock && got[0] == static_cast<char>(i) && got.compare(1, kBlock, block, 1) == 0;
  }
  if (!intact) ends.first.shut_down();
  writer.join();
  EXPECT_TRUE(intact);
}

TEST_F(RelayTest, ASlowReaderStopsItsWriter) {
  auto [near, far] = tunnel();
  const std::string block(1 << 20, 'x');
  size_t sent = 0;  // MiB, until the socket takes no more for a while
  const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
  uint64_t bytes = 0;
  while (bytes < (uint64_t{256} << 20) &&
         near.wait(POLLOUT, SteadyClock::now() + std::chrono::milliseconds(1000))) {
    const ssize_t wrote = ::send(near.fd(), block.data(), block.size(), flags);
    if (wrote > 0) bytes += static_cast<uint64_t>(wrote);
  }
  sent = bytes >> 20;
  EXPECT_LT(sent, 64u);
  EXPECT_EQ(receive(far, bytes).size(), bytes);  // and nothing of it is lost
}

TEST_F(RelayTest, ATunnelToNobodySaysSo) {
  gateway_handler_.attach("gamma");
  for (const char* name : {"gamma", "nobody"}) {
    Socket near = dial(*alpha_->dial(name));
    EXPECT_TRUE(is_closed(near));
    EXPECT_THAT(alpha_->failure(name).message(), HasSubstr(std::string("no tunnel leads to ") + name));
  }
  EXPECT_EQ(alpha_->dial("../etc").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(addresses_to_dial("relay:beta", nullptr).status().code(), Code::kInvalidArgument);
  EXPECT_GE(server_->relay_stats().refused, 2u);
}

TEST_F(RelayTest, OnlyAttachedWorkersAreCarried) {
  auto stranger = client("stranger");
  Socket near = dial(*stranger->dial("beta"));
  EXPECT_TRUE(is_closed(near));
  EXPECT_EQ(stranger->failure("beta").code(), Code::kPermissionDenied);

  auto [mine, theirs] = tunnel();
  gateway_handler_.detach("beta");  // expelled, or its stream broke and does not come back
  EXPECT_TRUE(is_closed(mine));
  EXPECT_TRUE(is_closed(theirs));
  EXPECT_THAT(alpha_->failure("beta").message(), HasSubstr("has left"));
}

TEST_F(RelayTest, ATunnelThatNobodyTakesEnds) {
  { auto once = tunnel(); }  // beta listens
  listening_ = Socket();     // its own server is gone
  Socket near = dial(*alpha_->dial("beta"));
  EXPECT_TRUE(is_closed(near));
  EXPECT_THAT(alpha_->failure("beta").message(), HasSubstr("did not take the tunnel"));
}

TEST_F(RelayTest, AnIdleTunnelAndOneTooManyAreEnded) {
  limits_.idle_timeout = std::chrono::milliseconds(300);
  limits_.max_tunnels_per_worker = 2;
  start(address_);
  auto first = tunnel();
  EXPECT_TRUE(is_closed(first.first));
  limits_.idle_timeout = std::chrono::seconds(60);
  start(address_);
  auto one = tunnel(), two = tunnel();
  Socket third = dial(*alpha_->dial("beta"));
  EXPECT_TRUE(is_closed(third));
  EXPECT_EQ(alpha_->failure("beta").code(), Code::kResourceExhausted);
}

TEST_F(RelayTest, AfterTheGatewayRestartsTunnelsAreMadeAgain) {
  auto before = tunnel();
  start(address_);
  EXPECT_TRUE(is_closed(before.first));
  EXPECT_TRUE(is_closed(before.second));
  auto [near, far] = tunnel();
  ASSERT_TRUE(near.send_all("again"));
  EXPECT_EQ(receive(far, 5), "again");
}

class Inbox final : public PeerHandler {
 public:
  void on_message(const std::string& peer, std::string, Message) override {
    MutexLock lock(mutex_);
    peers_.push_back(peer);
  }
  Result<std::string> read_file(const std::string& peer, const std::string&, const std::string&, uint64_t,
                                uint64_t length) override {
    return std::string(length, peer[0]);
  }
  Result<std::string> manifest(const std::string&, const std::string&) override { return std::string("{}"); }
  std::vector<std::string> peers() {
    MutexLock lock(mutex_);
    return peers_;
  }

 private:
  Mutex mutex_;
  std::vector<std::string> peers_;
};
class Events final : public PeerEvents {
 public:
  void undelivered(const std::string&, const std::string&, Message, const Status& why) override {
    MutexLock lock(mutex_);
    why_ = why;
  }
  void down(const std::string&, const Status&) override {}
  Status why() {
    MutexLock lock(mutex_);
    return why_;
  }

 private:
  Mutex mutex_;
  Status why_;
};

TEST_F(RelayTest, LinksAndFilesPassWithTlsFromEndToEnd) {
  Inbox inbox;
  auto server = PeerServer::start("127.0.0.1:0", identity("gamma"), inbox, quick_options());
  ASSERT_TRUE(server.ok());
  gateway_handler_.attach("gamma");
  auto gamma = client("gamma");
  gamma->accept_to({"127.0.0.1", (*server)->port()});
  Events events;
  auto links = PeerLinks::create(identity("alpha"), 1, events, quick_options(), alpha_.get());
  EXPECT_EQ(links->learn("beta", "relay:gamma").code(), Code::kInvalidArgument);
  ASSERT_TRUE(links->learn("gamma", "relay:gamma").ok());
  ASSERT_TRUE(eventually([&] {
    links->send("gamma/1", CloseSession{1, 1});
    return !inbox.peers().empty();
  }));
  EXPECT_EQ(inbox.peers()[0], "alpha");  // the name in alpha's certificate, not the gateway's
  EXPECT_TRUE(eventually([&] { return links->reports().size() == 1; }));

  auto files = RemoteFiles::open("relay:gamma", identity("alpha"), "gamma", quick_options(), alpha_.get());
  ASSERT_TRUE(files.ok());
  std::string got;
  const auto sink = [&](std::string_view bytes) {
    got += bytes;
    return Status();
  };
  const Status read = (*files)->read("toy", "weights", 0, 3'000'000, sink, std::chrono::seconds(10));
  EXPECT_TRUE(read.ok()) << read.message();
  EXPECT_EQ(got, std::string(3'000'000, 'a'));

  // Who answers at the other end must be whom we mean.
  LinkOptions impatient = quick_options();
  impatient.connect_timeout = std::chrono::milliseconds(500);
  auto wrong = RemoteFiles::open("relay:gamma", identity("alpha"), "beta", impatient, alpha_.get());
  EXPECT_EQ((*wrong)->manifest("toy", std::chrono::seconds(2)).status().code(), Code::kUnavailable);

  // What could not be delivered says what the tunnel knows.
  ASSERT_TRUE(links->learn("delta", "relay:delta").ok());
  links->send("delta/1", CloseSession{1, 1});
  ASSERT_TRUE(eventually([&] { return !events.why().ok(); }));
  EXPECT_THAT(events.why().message(), HasSubstr("no tunnel leads to delta"));
  links.reset();
}

TEST_F(RelayTest, TheGatewayProbesWhereAWorkerIsReached) {
  Inbox inbox;
  auto server = PeerServer::start("127.0.0.1:0", identity("gamma"), inbox, quick_options());
  ASSERT_TRUE(server.ok());
  const std::string here = "127.0.0.1:" + std::to_string((*server)->port());
  auto reached = probe_reachability(address_, identity("gamma"), "127.0.0.1:1," + here, quick_options());
  ASSERT_TRUE(reached.ok()) << reached.status().message();
  EXPECT_EQ(*reached, here);
  // Another worker answers there: not us.
  reached = probe_reachability(address_, identity("delta"), here, quick_options());
  ASSERT_TRUE(reached.ok()) << reached.status().message();
  EXPECT_EQ(*reached, "");
  EXPECT_EQ(probe_reachability(address_, identity("delta"), "nowhere", quick_options()).status().code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::wire
