#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <map>
#include <optional>

#include "wire/channel.h"
#include "wire/client_stream.h"
#include "wire/codec_samples.h"
#include "wire/control_client.h"
#include "wire/control_server.h"
#include "wire/protocol.h"
#include "wire/wire_test_util.h"

namespace tessera::wire {
namespace {

using ::testing::HasSubstr;

constexpr const char* kAttach = "/tessera.v1.Control/Attach";

// A gateway that welcomes everybody who has a certificate and remembers what it heard.
class FakeGateway final : public ControlHandler {
 public:
  explicit FakeGateway(const CertificateAuthority& authority) : authority_(authority) {}

  Result<Membership> join(const JoinRequest& request) override {
    if (request.token_secret != secret)
      return Status(Code::kPermissionDenied, "this join token is not known");
    const std::string name = request.wanted_name.empty() ? "worker-1" : request.wanted_name;
    TESSERA_ASSIGN_OR_RETURN(auto chain, authority_.issue(request.csr_pem, name, std::time(nullptr)));
    return Membership{name, chain};
  }
  Result<Membership> renew(const std::string& worker, const std::string& csr_pem) override {
    TESSERA_ASSIGN_OR_RETURN(auto chain, authority_.issue(csr_pem, worker, std::time(nullptr)));
    return Membership{worker, chain};
  }
  Result<Membership> renew_expired(const std::string& chain_pem, const std::string& csr_pem) override {
    TESSERA_ASSIGN_OR_RETURN(auto name, authority_.check_expired(chain_pem, csr_pem, std::time(nullptr)));
    return renew(name, csr_pem);
  }
  bool may_relay(const std::string& worker) override { return stream(worker) != nullptr; }
  void on_attach(std::shared_ptr<WorkerStream> stream, Hello hello) override {
    stream->send(Welcome{kProtocol, "gateway", 1, ++leases, 3000});
    MutexLock lock(mutex_);
    hellos_.push_back(std::move(hello));
    streams_[stream->worker()] = std::move(stream);
  }
  void on_control(WorkerStream& stream, ControlMessage message) override {
    if (const auto* beat = std::get_if<Heartbeat>(&message)) stream.send(HeartbeatAck{beat->number});
  }
  void on_message(WorkerStream&, std::string to, Message message) override {
    MutexLock lock(mutex_);
    heard_.emplace_back(std::move(to), session_of(message));
  }
  void on_detach(WorkerStream& stream, const Status& why) override {
    MutexLock lock(mutex_);
    last_end_ = why;
    ++detached_;
    if (streams_[stream.worker()].get() == &stream) streams_.erase(stream.worker());
  }
  Result<std::string> read_file(const std::string& peer, const std::string& model, const std::string& file,
                                uint64_t offset, uint64_t length) override {
    if (model != "toy" || file != "weights") return not_found("no such file: " + file);
    if (offset + length > kFileSize) return invalid_argument("beyond the end of the file");
    std::string bytes(length, '\0');
    for (uint64_t i = 0; i < length; ++i) bytes[i] = static_cast<char>((offset + i) * 31 % 251);
    MutexLock lock(mutex_);
    readers_.push_back(peer);
    return bytes;
  }
  Result<std::string> manifest(const std::string&, const std::string& model) override {
    if (model != "toy") return not_found("no model " + model);
    return std::string("{\"tensors\":[]}");
  }

  std::shared_ptr<WorkerStream> stream(const std::string& worker) {
    MutexLock lock(mutex_);
    const auto found = streams_.find(worker);
    return found == streams_.end() ? nullptr : found->second;
  }
  std::vector<std::pair<std::string, SessionId>> heard() {
    MutexLock lock(mutex_);
    return heard_;
  }
  std::vector<Hello> hellos() {
    MutexLock lock(mutex_);
    return hellos_;
  }
  int detached() {
    MutexLock lock(mutex_);
    return detached_;
  }
  Status last_end() {
    MutexLock lock(mutex_);
    return last_end_;
  }
  std::vector<std::string> readers() {
    MutexLock lock(mutex_);
    return readers_;
  }

  static constexpr uint64_t kFileSize = 1'000'003;
  std::string secret = std::string(JoinToken::kSecretBytes, 's');
  std::atomic<uint64_t> leases{0};

 private:
  const CertificateAuthority& authority_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<WorkerStream>> streams_;
  std::vector<Hello> hellos_;
  std::vector<std::pair<std::string, SessionId>> heard_;
  std::vector<std::string> readers_;
  int detached_ = 0;
  Status last_end_;
};

class FakeWorker final : public GatewayEvents {
 public:
  Hello hello() override {
    Hello h = samples::hello();
    h.incarnation = ++hellos;
    return h;
  }
  void on_control(ControlMessage message) override {
    if (std::holds_alternative<Welcome>(message)) ++welcomes;
    if (const auto* ack = std::get_if<HeartbeatAck>(&message)) last_ack = ack->number;
  }
  void on_message(std::string to, Message message) override {
    MutexLock lock(mutex_);
    heard_.emplace_back(std::move(to), session_of(message));
  }
  void on_down(const Status& why, bool is_final) override {
    MutexLock lock(mutex_);
    why_ = why;
    ++downs_;
    final_ = final_ || is_final;
  }
  std::vector<std::pair<std::string, SessionId>> heard() {
    MutexLock lock(mutex_);
    return heard_;
  }
  Status why() {
    MutexLock lock(mutex_);
    return why_;
  }
  int downs() {
    MutexLock lock(mutex_);
    return downs_;
  }
  bool ended_for_good() {
    MutexLock lock(mutex_);
    return final_;
  }
  std::atomic<uint64_t> hellos{0}, last_ack{0};
  std::atomic<int> welcomes{0};

 private:
  Mutex mutex_;
  std::vector<std::pair<std::string, SessionId>> heard_;
  Status why_;
  int downs_ = 0;
  bool final_ = false;
};

class ControlTest : public WireTest {
 protected:
  ControlTest() : fake_(*authority_) { start("127.0.0.1:0", quick_options()); }

  void start(const std::string& listen, const LinkOptions& options) {
    server_.reset();
    auto server = ControlServer::start(listen, gateway_, fake_, options);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    address_ = "127.0.0.1:" + std::to_string(server_->port());
  }
  JoinUrl invitation() {
    JoinUrl url{address_, {}};
    url.token.secret = fake_.secret;
    url.token.ca_sha256 = authority_->sha256();
    url.token.expires_unix_s = std::time(nullptr) + 60;
    return url;
  }
  std::unique_ptr<GatewayStream> attach(const Identity& identity, FakeWorker& worker,
                                        const std::string& addresses) {
    auto stream = GatewayStream::start(addresses, identity, worker, quick_options());
    EXPECT_TRUE(stream.ok()) << stream.status().message();
    return *std::move(stream);
  }
  // A raw stream to Attach: its first frame, and the status that it ends with.
  Status attach_raw(const Identity* identity, const std::string& first) {
    std::atomic<bool> ended{false};
    Status end;
    auto channel = make_channel((*parse_addresses(address_))[0], authority_->certificate_pem(), identity,
                                std::string(kGatewayDnsName), quick_options());
    auto stream = ClientStream::start(channel, kAttach, first, quick_options(),
                                      {[](Frame) { return Status(); },
                                       [&](const Status& why, auto) {
                                         end = why;
                                         ended = true;
                                       }});
    EXPECT_TRUE(eventually([&] { return ended.load(); }));
    return end;
  }

  FakeGateway fake_;
  std::unique_ptr<ControlServer> server_;
  std::string address_;
};

TEST_F(ControlTest, AWorkerJoinsAttachesAndTalks) {
  auto identity = join(invitation(), "alpha");
  ASSERT_TRUE(identity.ok()) << identity.status().message();
  EXPECT_EQ(identity->name, "alpha");
  auto renewed = renew(address_, *identity);
  ASSERT_TRUE(renewed.ok()) << renewed.status().message();
  EXPECT_NE(renewed->chain_pem, identity->chain_pem);

  FakeWorker worker;
  auto stream = attach(*renewed, worker, address_);
  ASSERT_TRUE(eventually([&] { return worker.welcomes == 1; }));
  ASSERT_TRUE(eventually([&] { return fake_.stream("alpha") != nullptr; }));
  EXPECT_EQ(fake_.hellos()[0].capabilities.device, samples::hello().capabilities.device);
  EXPECT_TRUE(stream->send(Heartbeat{1, 7, false, {}, {}}));
  EXPECT_TRUE(eventually([&] { return worker.last_ack == 7; }));
  const auto messages = samples::session_messages();
  const size_t sent = messages.size();
  for (const auto& message : messages) {
    EXPECT_TRUE(stream->send("gateway/toy", message));
    EXPECT_TRUE(fake_.stream("alpha")->send("alpha/1", message));
  }
  EXPECT_TRUE(eventually([&] { return fake_.heard().size() == sent && worker.heard().size() == sent; }));
  EXPECT_EQ(fake_.heard()[0].first, "gateway/toy");
  EXPECT_EQ(worker.heard().back(), (std::pair<std::string, SessionId>{"alpha/1", 11}));
  stream.reset();
  EXPECT_TRUE(eventually([&] { return fake_.detached() == 1; }));
}

TEST_F(ControlTest, BadInvitationsAreRefusedWithTheirReason) {
  JoinUrl wrong_secret = invitation();
  wrong_secret.token.secret[0] ^= 1;
  auto refused = join(wrong_secret, "alpha");
  EXPECT_EQ(refused.status().code(), Code::kPermissionDenied);
  EXPECT_THAT(refused.status().message(), HasSubstr("not known"));

  JoinUrl wrong_ca = invitation();
  wrong_ca.token.ca_sha256[5] ^= 1;
  auto stranger = join(wrong_ca, "alpha");
  EXPECT_EQ(stranger.status().code(), Code::kPermissionDenied);
  EXPECT_THAT(stranger.status().message(), HasSubstr("another authority"));

  JoinUrl nobody = invitation();
  nobody.addresses = "127.0.0.1:1";
  EXPECT_EQ(join(nobody, "alpha").status().code(), Code::kUnavailable);
}

TEST_F(ControlTest, AStreamThatBreaksIsMadeAgainWithANewHello) {
  FakeWorker worker;
  auto stream = attach(identity("alpha"), worker, "127.0.0.1:1," + address_);
  ASSERT_TRUE(eventually([&] { return worker.welcomes == 1; }));
  const uint64_t hellos = worker.hellos;
  const std::string listen = address_;
  server_.reset();
  ASSERT_TRUE(eventually([&] { return worker.downs() >= 2; }));
  EXPECT_FALSE(stream->send(Heartbeat{}));
  start(listen, quick_options());
  ASSERT_TRUE(eventually([&] { return worker.welcomes == 2; }));
  EXPECT_GT(worker.hellos, hellos);
  EXPECT_GT(fake_.hellos()[1].incarnation, fake_.hellos()[0].incarnation);
  EXPECT_FALSE(worker.ended_for_good());
}

TEST_F(ControlTest, AGoodbyeIsHeardAndAFinalOneEndsTheAttempts) {
  FakeWorker worker;
  auto stream = attach(identity("alpha"), worker, address_);
  ASSERT_TRUE(eventually([&] { return fake_.stream("alpha") != nullptr; }));
  fake_.stream("alpha")->close({"restarting", false});
  ASSERT_TRUE(eventually([&] { return worker.welcomes == 2 && fake_.stream("alpha") != nullptr; }));
  fake_.stream("alpha")->close({"you are expelled", true});
  ASSERT_TRUE(eventually([&] { return worker.ended_for_good(); }));
  EXPECT_THAT(worker.why().message(), HasSubstr("expelled"));
  EXPECT_TRUE(eventually([&] { return fake_.detached() == 2; }));
}

TEST_F(ControlTest, WhoHasNoFittingCertificateDoesNotAttach) {
  const std::string hello = encode(ControlMessage(samples::hello()), 1);
  const Status without = attach_raw(nullptr, hello);
  EXPECT_EQ(without.code(), Code::kPermissionDenied);
  const Identity beta = identity("beta");
  const Status other = attach_raw(&beta, hello);
  EXPECT_EQ(other.code(), Code::kPermissionDenied);
  EXPECT_THAT(other.message(), HasSubstr("'alpha'"));
  // A certificate of the same name by another authority.
  auto strangers = CertificateAuthority::open(folder_ / "other", std::time(nullptr));
  const Identity forged = identity_from(*strangers, "alpha", std::time(nullptr));
  EXPECT_EQ(attach_raw(&forged, hello).code(), Code::kUnavailable);
  EXPECT_TRUE(fake_.hellos().empty());
  FakeWorker worker;
  auto expired =
      attach(identity_from(*authority_, "alpha", std::time(nullptr) - 70 * 24 * 3600), worker, address_);
  ASSERT_TRUE(eventually([&] { return worker.ended_for_good(); }));
  EXPECT_THAT(worker.why().message(), HasSubstr("expired"));
}

TEST_F(ControlTest, AnExpiredCertificateIsRenewedAndTheStreamComesUp) {
  const LiveIdentity alpha = identity_from(*authority_, "alpha", std::time(nullptr) - 40 * 24 * 3600);
  FakeWorker worker;
  auto stream = GatewayStream::start(address_, alpha, worker, quick_options());
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(eventually([&] { return worker.downs() >= 2; }));
  EXPECT_FALSE(worker.ended_for_good());
  EXPECT_EQ(worker.welcomes, 0);
  auto renewed = renew(address_, *alpha.get());
  ASSERT_TRUE(renewed.ok()) << renewed.status().message();
  EXPECT_EQ(renewed->name, "alpha");
  EXPECT_EQ(alpha.replace(identity("beta")).code(), Code::kInvalidArgument);
  ASSERT_TRUE(alpha.replace(*renewed).ok());
  EXPECT_TRUE(eventually([&] { return worker.welcomes == 1; }));

  const Identity ancient = identity_from(*authority_, "alpha", std::time(nullptr) - 70 * 24 * 3600);
  EXPECT_EQ(renew(address_, ancient).status().code(), Code::kPermissionDenied);
}

TEST_F(ControlTest, ARunningServerShowsItsRenewedCertificate) {
  const LiveIdentity gateway =
      *authority_->make_gateway_identity("gateway", std::time(nullptr) - 40 * 24 * 3600);
  server_ = *ControlServer::start("127.0.0.1:0", gateway, fake_, quick_options());
  address_ = "127.0.0.1:" + std::to_string(server_->port());
  FakeWorker early;
  auto stream = attach(identity("alpha"), early, address_);
  ASSERT_TRUE(eventually([&] { return early.downs() >= 1; }));  // who would talk to an expired gateway?
  ASSERT_TRUE(gateway.replace(*authority_->make_gateway_identity("gateway", std::time(nullptr))).ok());
  ASSERT_TRUE(eventually([&] { return early.welcomes == 1; }));
  // Another renewal disturbs no stream that is up.
  const int downs = early.downs();
  ASSERT_TRUE(gateway.replace(*authority_->make_gateway_identity("gateway", std::time(nullptr))).ok());
  FakeWorker late;
  auto other = attach(identity("beta"), late, address_);
  EXPECT_TRUE(eventually([&] { return late.welcomes == 1; }));
  EXPECT_TRUE(stream->send(Heartbeat{1, 3, false, {}, {}}));
  EXPECT_TRUE(eventually([&] { return early.last_ack == 3; }));
  EXPECT_EQ(early.downs(), downs);
}

TEST_F(ControlTest, AnotherProtocolIsRefusedWithBothRanges) {
  Hello newer = samples::hello();
  newer.protocol = {7, 9};
  const Identity alpha = identity("alpha");
  const Status status = attach_raw(&alpha, encode(ControlMessage(newer), 9));
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("7 to 9"));
  EXPECT_THAT(status.message(), HasSubstr("1 to 1"));
}

TEST_F(ControlTest, PlaintextIsRefused) {
  auto channel = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
  EXPECT_FALSE(channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::milliseconds(300)));
}

TEST_F(ControlTest, BadAndOversizedFramesEndTheirStreamAndNothingElse) {
  LinkOptions small = quick_options();
  small.max_message_bytes = 1 << 20;
  start("127.0.0.1:0", small);
  FakeWorker worker;
  auto bystander = attach(identity("alpha"), worker, address_);
  ASSERT_TRUE(eventually([&] { return worker.welcomes == 1; }));

  const Identity beta = identity("beta");
  EXPECT_EQ(attach_raw(&beta, "this is no frame").code(), Code::kCorrupt);
  EXPECT_EQ(attach_raw(&beta, encode(ControlMessage(Drain{}), 1)).code(), Code::kInvalidArgument);
  EXPECT_EQ(attach_raw(&beta, encode(LinkMessage(Ping{1, 2 << 20}), 1)).code(), Code::kResourceExhausted);

  EXPECT_TRUE(bystander->send(Heartbeat{1, 9, false, {}, {}}));
  EXPECT_TRUE(eventually([&] { return worker.last_ack == 9; }));
  EXPECT_EQ(worker.downs(), 0);
}

TEST_F(ControlTest, AWorkerThatDoesNotReadIsCutOff) {
  LinkOptions small = quick_options();
  small.max_queue_bytes = 4 << 20;
  start("127.0.0.1:0", small);
  // A client whose callback never returns while the gateway sends: nothing more is read.
  std::atomic<bool> release{false}, ended{false};
  const Identity alpha = identity("alpha");
  auto channel = make_channel((*parse_addresses(address_))[0], authority_->certificate_pem(), &alpha,
                              std::string(kGatewayDnsName), quick_options());
  auto raw =
      ClientStream::start(channel, kAttach, encode(ControlMessage(samples::hello()), 1), quick_options(),
                          {[&](Frame) {
                             while (!release) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                             return Status();
                           },
                           [&](const Status&, auto) { ended = true; }});
  ASSERT_TRUE(eventually([&] { return fake_.stream("alpha") != nullptr; }));
  auto stream = fake_.stream("alpha");
  Rows rows = samples::rows();
  rows.tokens.assign(64, 1);
  rows.hidden.assign(64 * 1024, 1.0f);
  int sent = 0;
  while (sent < 1000 && stream->send("alpha/1", rows)) ++sent;
  EXPECT_LT(sent, 200);  // 4 MiB of queue and what the sockets hold, not 250 MiB
  EXPECT_TRUE(eventually([&] { return fake_.detached() == 1; }));
  EXPECT_EQ(fake_.last_end().code(), Code::kResourceExhausted);
  release = true;
  EXPECT_TRUE(eventually([&] { return ended.load(); }));
}

TEST_F(ControlTest, FilesAreReadByMembersOnly) {
  auto files = RemoteFiles::open(address_, identity("alpha"), std::string(kGatewayDnsName), quick_options());
  ASSERT_TRUE(files.ok());
  std::string got;
  auto sink = [&](std::string_view bytes) {
    got += bytes;
    return Status();
  };
  const std::chrono::milliseconds stall(5000);
  ASSERT_TRUE((*files)->read("toy", "weights", 1000, 900'000, sink, stall).ok());
  ASSERT_EQ(got.size(), 900'000u);
  for (size_t i = 0; i < got.size(); i += 997) ASSERT_EQ(static_cast<uint8_t>(got[i]), (i + 1000) * 31 % 251);
  EXPECT_EQ(fake_.readers()[0], "alpha");
  EXPECT_EQ((*files)->read("toy", "other", 0, 10, sink, stall).code(), Code::kNotFound);
  EXPECT_EQ((*files)->read("toy", "weights", FakeGateway::kFileSize, 1, sink, stall).code(),
            Code::kInvalidArgument);
  EXPECT_EQ((*files)
                ->read(
                    "toy", "weights", 0, 900'000, [](auto) { return cancelled("enough"); }, stall)
                .message(),
            "enough");
  EXPECT_EQ(*(*files)->manifest("toy", stall), "{\"tensors\":[]}");
  EXPECT_EQ((*files)->manifest("none", stall).status().code(), Code::kNotFound);

  auto strangers = CertificateAuthority::open(folder_ / "other", std::time(nullptr));
  Identity forged = identity_from(*strangers, "alpha", std::time(nullptr));
  forged.ca_pem = authority_->certificate_pem();
  LinkOptions impatient = quick_options();
  impatient.connect_timeout = std::chrono::milliseconds(300);
  auto refused = RemoteFiles::open(address_, forged, std::string(kGatewayDnsName), impatient);
  EXPECT_EQ((*refused)->manifest("toy", stall).status().code(), Code::kUnavailable);
}

TEST_F(ControlTest, AHundredThousandMessagesKeepTheirOrder) {
  FakeWorker worker;
  auto stream = attach(identity("alpha"), worker, address_);
  ASSERT_TRUE(eventually([&] { return worker.welcomes == 1; }));
  constexpr SessionId kCount = 100'000;
  for (SessionId i = 0; i < kCount; ++i) ASSERT_TRUE(stream->send("gateway/toy", CloseSession{i, 1}));
  ASSERT_TRUE(eventually([&] { return fake_.heard().size() == kCount; }, std::chrono::seconds(60)));
  const auto heard = fake_.heard();
  for (SessionId i = 0; i < kCount; ++i) ASSERT_EQ(heard[i].second, i);
}

}  // namespace
}  // namespace tessera::wire
