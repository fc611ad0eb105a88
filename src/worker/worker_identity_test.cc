#include "worker/worker_identity.h"

#include <gtest/gtest.h>

#include "wire/control_server.h"
#include "wire/wire_test_util.h"

namespace tessera::worker {
namespace {

// A gateway that only renews, if it wants to.
class Renewer final : public wire::ControlHandler {
 public:
  explicit Renewer(const wire::CertificateAuthority& authority) : authority_(authority) {}
  Result<wire::Membership> join(const wire::JoinRequest&) override {
    return Status(Code::kPermissionDenied, "no");
  }
  Result<wire::Membership> renew(const std::string& worker, const std::string& csr_pem) override {
    ++asked;
    if (!willing) return unavailable("the database is away");
    TESSERA_ASSIGN_OR_RETURN(auto chain, authority_.issue(csr_pem, worker, std::time(nullptr)));
    return wire::Membership{worker, chain};
  }
  Result<wire::Membership> renew_expired(const std::string& chain_pem, const std::string& csr_pem) override {
    TESSERA_ASSIGN_OR_RETURN(auto name, authority_.check_expired(chain_pem, csr_pem, std::time(nullptr)));
    return renew(name, csr_pem);
  }
  bool may_relay(const std::string&) override { return false; }
  void on_attach(std::shared_ptr<wire::WorkerStream>, Hello) override {}
  void on_control(wire::WorkerStream&, ControlMessage) override {}
  void on_message(wire::WorkerStream&, std::string, Message) override {}
  void on_detach(wire::WorkerStream&, const Status&) override {}
  Result<std::string> read_file(const std::string&, const std::string&, const std::string&, uint64_t,
                                uint64_t) override {
    return not_found("no");
  }
  Result<std::string> manifest(const std::string&, const std::string&) override { return not_found("no"); }

  std::atomic<bool> willing{true};
  std::atomic<int> asked{0};

 private:
  const wire::CertificateAuthority& authority_;
};

class IdentityTest : public wire::WireTest {
 protected:
  IdentityTest() : renewer_(*short_lived()) {
    server_ = *wire::ControlServer::start("127.0.0.1:0", gateway_, renewer_, wire::quick_options());
    address_ = "127.0.0.1:" + std::to_string(server_->port());
  }
  // The cluster's authority, with certificates that live for 4 seconds.
  const wire::CertificateAuthority* short_lived() {
    auto opened =
        wire::CertificateAuthority::open(folder_ / "ca", {3650, std::chrono::seconds(4)}, std::time(nullptr));
    short_ = std::make_unique<wire::CertificateAuthority>(*std::move(opened));
    return short_.get();
  }
  std::string chain_on_disk() {
    auto identity = wire::load_identity(folder_ / "me");
    return identity.ok() ? identity->chain_pem : identity.status().message();
  }

  std::unique_ptr<wire::CertificateAuthority> short_;
  Renewer renewer_;
  std::unique_ptr<wire::ControlServer> server_;
  std::string address_;
};

TEST_F(IdentityTest, ACertificateIsRenewedWhileTheWorkerRunsAndAgainAfterARefusal) {
  const wire::LiveIdentity identity = identity_from(*short_, "alpha", std::time(nullptr));
  const std::string first = identity.get()->chain_pem;
  ASSERT_TRUE(wire::save_identity(folder_ / "me", *identity.get()).ok());
  renewer_.willing = false;
  IdentityRenewal renewal(folder_ / "me", address_, identity);
  ASSERT_TRUE(wire::eventually([&] { return renewer_.asked >= 2; }));
  EXPECT_EQ(identity.get()->chain_pem, first);
  renewer_.willing = true;  // perhaps only when it has expired
  ASSERT_TRUE(wire::eventually([&] { return identity.get()->chain_pem != first; }));
  const std::string second = identity.get()->chain_pem;
  EXPECT_EQ(identity.get()->key_pem, wire::load_identity(folder_ / "me")->key_pem);
  EXPECT_TRUE(wire::eventually([&] { return identity.get()->chain_pem != second; }));
  EXPECT_TRUE(wire::eventually([&] { return chain_on_disk() == identity.get()->chain_pem; }));
}

TEST_F(IdentityTest, AFolderIsOneProcesssOnly) {
  auto first = IdentityFolder::take(folder_ / "workers", "alpha");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->path(), folder_ / "workers" / "alpha");
  {
    auto second = IdentityFolder::take(folder_ / "workers", "alpha");
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(second->path(), folder_ / "workers" / "alpha-2");
  }
  auto third = IdentityFolder::take(folder_ / "workers", "alpha");
  EXPECT_EQ(third->path(), folder_ / "workers" / "alpha-2");
}

}  // namespace
}  // namespace tessera::worker
