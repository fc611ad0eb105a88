#include "control/identities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/files.h"
#include "core/identity_name.h"
#include "store/sqlite_database.h"
#include "store/test_util.h"

namespace tessera::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

const std::string kSecret = "0123456789abcdefghijklmn", kOther = "another secret of 24 byt";

class IdentitiesTest : public ::testing::Test {
 protected:
  void SetUp() override { reopen(); }
  // As after a restart of the gateway.
  void reopen() {
    identities_.reset();
    database_.reset();
    auto database = store::open_sqlite(folder_.path() / "state.db");
    ASSERT_TRUE(database.ok()) << database.status().to_string();
    database_ = std::move(*database);
    auto identities = Identities::open(*database_, clock_);
    ASSERT_TRUE(identities.ok()) << identities.status().to_string();
    identities_ = std::move(*identities);
  }
  WorkerIdentity admit(const std::string& wanted, const std::string& proven = "") {
    auto worker = identities_->admit(wanted, proven);
    EXPECT_TRUE(worker.ok()) << worker.status().to_string();
    return worker.ok() ? *worker : WorkerIdentity{};
  }

  store::TestFolder folder_;
  store::ManualClock clock_;
  std::unique_ptr<store::Database> database_;
  std::unique_ptr<Identities> identities_;
};

TEST_F(IdentitiesTest, TokensAreCountedAndUsedUp) {
  const auto added = identities_->add_token(kSecret, {0, 2, "for the lab"});
  ASSERT_TRUE(added.ok()) << added.status().to_string();
  EXPECT_EQ(added->id.size(), 8u);
  EXPECT_EQ(identities_->redeem_token(kSecret)->used, 1);
  reopen();
  EXPECT_EQ(identities_->redeem_token(kSecret)->used, 2);
  const Status used_up = identities_->redeem_token(kSecret).status();
  EXPECT_EQ(used_up.code(), Code::kPermissionDenied);
  EXPECT_THAT(used_up.message(), HasSubstr("used up"));
  const auto tokens = *identities_->list_tokens();
  ASSERT_EQ(tokens.size(), 1u);
  EXPECT_EQ(tokens[0].terms.note, "for the lab");
  EXPECT_THAT(tokens[0].terms.uses_left, Optional(0));
  EXPECT_FALSE(tokens[0].usable(clock_.unix_time_ms()));
}

TEST_F(IdentitiesTest, AForeignTokenIsRefusedWithoutSayingMore) {
  ASSERT_TRUE(identities_->add_token(kSecret, {}).ok());
  for (const std::string& wrong : {kOther, std::string(), kSecret + "x", kSecret.substr(1)}) {
    const Status status = identities_->redeem_token(wrong).status();
    EXPECT_EQ(status.code(), Code::kPermissionDenied);
    EXPECT_THAT(status.message(), HasSubstr("not known here"));
  }
  EXPECT_EQ(identities_->list_tokens()->at(0).used, 0);
  EXPECT_EQ(identities_->add_token(kSecret, {}).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(identities_->add_token("short", {}).status().code(), Code::kInvalidArgument);
}

TEST_F(IdentitiesTest, TokensExpireAreRevokedAndRotated) {
  ASSERT_TRUE(identities_->add_token(kSecret, {clock_.unix_time_ms() + 1000, {}, "n"}).ok());
  EXPECT_TRUE(identities_->redeem_token(kSecret).ok());
  clock_.advance(std::chrono::milliseconds(1000));
  EXPECT_THAT(identities_->redeem_token(kSecret).status().message(), HasSubstr("has expired"));

  const std::string id = identities_->list_tokens()->at(0).id;
  const auto rotated = identities_->rotate_token(id, kOther, {});
  ASSERT_TRUE(rotated.ok()) << rotated.status().to_string();
  EXPECT_EQ(rotated->terms.note, "n");
  EXPECT_THAT(identities_->redeem_token(kSecret).status().message(), HasSubstr("was revoked"));
  EXPECT_TRUE(identities_->redeem_token(kOther).ok());
  ASSERT_TRUE(identities_->revoke_token(rotated->id).ok());
  EXPECT_EQ(identities_->redeem_token(kOther).status().code(), Code::kPermissionDenied);
  EXPECT_EQ(identities_->revoke_token("nothing").code(), Code::kNotFound);

  // A rotation that fails revokes nothing.
  const std::string third = "a third secret, 24 bytes";
  const auto kept = identities_->add_token(third, {});
  EXPECT_FALSE(identities_->rotate_token(kept->id, "short", {}).ok());
  EXPECT_TRUE(identities_->redeem_token(third).ok());
  ASSERT_TRUE(identities_->forget_tokens_before(clock_.unix_time_ms() + 1).ok());
  EXPECT_EQ(identities_->list_tokens()->size(), 1u);
}

TEST_F(IdentitiesTest, OnlyTheHashOfASecretIsOnTheDisk) {
  ASSERT_TRUE(identities_->add_token(kSecret, {}).ok());
  for (const char* name : {"state.db", "state.db-wal"})
    EXPECT_EQ(read_file(folder_.path() / name)->find(kSecret), std::string::npos) << name;
}

TEST_F(IdentitiesTest, AOnceOnlyTokenAdmitsOneOfMany) {
  ASSERT_TRUE(identities_->add_token(kSecret, {0, 1, ""}).ok());
  std::atomic<int> admitted = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 5; ++k) admitted += identities_->redeem_token(kSecret).ok();
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(admitted, 1);
}

TEST_F(IdentitiesTest, ARestartedWorkerKeepsItsIdentityAndAStrangerGetsAnother) {
  const WorkerIdentity first = admit("rig");
  EXPECT_EQ(first.name, "rig");
  clock_.advance(std::chrono::seconds(5));
  reopen();
  const WorkerIdentity again = admit("renamed", "rig");
  EXPECT_EQ(again.name, "rig");
  EXPECT_EQ(again.id, first.id);
  EXPECT_EQ(again.joins, 2);
  EXPECT_EQ(again.created_unix_ms, first.created_unix_ms);
  EXPECT_EQ(again.last_seen_unix_ms, clock_.unix_time_ms());

  EXPECT_EQ(admit("rig").name, "rig-2");
  EXPECT_EQ(admit("rig").name, "rig-3");
  EXPECT_EQ(admit("x", "rig-2").name, "rig-2");
  // The authority vouches for a worker that a restored database forgot.
  EXPECT_EQ(admit("x", "from-before").name, "from-before");
  EXPECT_EQ(identities_->list_workers()->size(), 4u);
}

TEST_F(IdentitiesTest, NamesAreBounded) {
  const std::string longest(63, 'a');
  EXPECT_EQ(admit(longest).name, longest);
  EXPECT_EQ(admit(longest).name, longest.substr(0, 61) + "-2");
  for (const std::string& bad : {std::string(), std::string("a/b"), std::string("-a"), std::string("a-"),
                                 std::string("UPPER"), std::string("a.b"), longest + "a"})
    EXPECT_EQ(identities_->admit(bad, "").status().code(), Code::kInvalidArgument) << bad;
  EXPECT_EQ(identities_->admit("good", "b/d").status().code(), Code::kInvalidArgument);

  EXPECT_EQ(make_identity_name("My Rig_2.local"), "my-rig-2");
  EXPECT_EQ(make_identity_name("--ünï--"), "n");
  EXPECT_EQ(make_identity_name("..."), "worker");
  EXPECT_EQ(make_identity_name(longest + "b"), longest);
}

TEST_F(IdentitiesTest, CertificatesBelongToTheirWorkerUntilItIsRevoked) {
  admit("a");
  admit("b");
  ASSERT_TRUE(identities_->record_certificate("a", "01", 1000).ok());
  ASSERT_TRUE(identities_->record_certificate("a", "02", 2000).ok());
  EXPECT_EQ(identities_->record_certificate("b", "01", 1000).code(), Code::kInvalidArgument);
  EXPECT_EQ(identities_->record_certificate("nobody", "03", 1000).code(), Code::kNotFound);
  reopen();
  EXPECT_EQ(identities_->find_worker("a")->certificate, "02");
  EXPECT_EQ(identities_->find_worker("a")->certificate_expires_unix_ms, 2000);
  // A worker that died before it stored the renewed one still has the one before.
  EXPECT_TRUE(identities_->check_certificate("a", "01").ok());
  EXPECT_TRUE(identities_->check_certificate("a", "02").ok());
  EXPECT_EQ(identities_->check_certificate("b", "02").code(), Code::kPermissionDenied);
  EXPECT_EQ(identities_->check_certificate("nobody", "02").code(), Code::kPermissionDenied);

  ASSERT_TRUE(identities_->revoke_worker("a", "stolen").ok());
  EXPECT_THAT(identities_->check_certificate("a", "02").message(), HasSubstr("was revoked: stolen"));
  EXPECT_EQ(identities_->admit("a", "a").status().code(), Code::kPermissionDenied);
  EXPECT_EQ(identities_->record_certificate("a", "04", 1000).code(), Code::kPermissionDenied);
  EXPECT_EQ(admit("a").name, "a-2");  // the name stays taken
  EXPECT_TRUE(identities_->find_worker("a")->revoked);
  EXPECT_EQ(identities_->revoke_worker("nobody", "").code(), Code::kNotFound);
  EXPECT_EQ(identities_->find_worker("nobody").status().code(), Code::kNotFound);
}

TEST_F(IdentitiesTest, LastSeenMoves) {
  admit("a");
  clock_.advance(std::chrono::seconds(7));
  ASSERT_TRUE(identities_->seen("a").ok());
  EXPECT_EQ(identities_->find_worker("a")->last_seen_unix_ms, clock_.unix_time_ms());
  EXPECT_EQ(identities_->seen("nobody").code(), Code::kNotFound);
}

TEST_F(IdentitiesTest, FailoversAreListedNewestFirst) {
  ASSERT_TRUE(identities_->record_failover({0, "a", "m", "stream closed", 3, 12.5}).ok());
  clock_.advance(std::chrono::seconds(1));
  ASSERT_TRUE(identities_->record_failover({0, "b", "m", "lease ran out", 1, 0}).ok());
  ASSERT_TRUE(identities_->record_failover({42, "a", "n", "killed", 2, 7}).ok());
  reopen();
  const auto all = *identities_->failovers(10);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].unix_ms, 42);
  EXPECT_EQ(all[1].worker, "b");
  EXPECT_EQ(all[1].unix_ms, clock_.unix_time_ms());
  EXPECT_EQ(all[2].cause, "stream closed");
  EXPECT_EQ(all[2].sessions, 3);
  EXPECT_EQ(all[2].stall_ms, 12.5);
  EXPECT_EQ(identities_->failovers(1)->size(), 1u);
  EXPECT_EQ(identities_->failovers(10, "a")->size(), 2u);
  EXPECT_EQ(identities_->failovers(-1)->size(), 0u);
}

TEST_F(IdentitiesTest, OldFailoversGo) {
  ASSERT_TRUE(identities_->record_failover({0, "old", "m", "x", 1, 0}).ok());
  ASSERT_TRUE(
      database_->execute("UPDATE failovers SET id = id + $1 - 1", {int64_t{0} + Identities::kFailoversKept})
          .ok());
  ASSERT_TRUE(identities_->record_failover({0, "newer", "m", "x", 1, 0}).ok());
  EXPECT_EQ(identities_->failovers(10)->size(), 2u);
  ASSERT_TRUE(database_->execute("UPDATE failovers SET id = 1 WHERE worker = 'old'").ok());
  ASSERT_TRUE(identities_->record_failover({0, "newest", "m", "x", 1, 0}).ok());
  EXPECT_EQ(identities_->failovers(10, "old")->size(), 0u);
}

TEST_F(IdentitiesTest, GatewaysAgreeOnASecret) {
  const std::string bytes("\0\1\2 secret", 10);
  EXPECT_EQ(*identities_->keep_secret("tickets", bytes), bytes);
  auto other_database = store::open_sqlite(folder_.path() / "state.db");
  ASSERT_TRUE(other_database.ok());
  auto other = Identities::open(**other_database, clock_);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(*(*other)->keep_secret("tickets", "another"), bytes);
  EXPECT_EQ(*identities_->meta("absent"), std::nullopt);
  ASSERT_TRUE(identities_->set_meta("epoch", "1").ok());
  ASSERT_TRUE((*other)->set_meta("epoch", "2").ok());
  reopen();
  EXPECT_THAT(*identities_->meta("epoch"), Optional(std::string("2")));
  EXPECT_EQ(*identities_->keep_secret("tickets", "third"), bytes);
}

}  // namespace
}  // namespace tessera::control
