#include "control/audit.h"

#include <gtest/gtest.h>

#include <thread>

#include "control/test_databases.h"

namespace tessera::control {
namespace {

class AuditTest : public DatabaseTest {
 protected:
  AuditTest() {
    audit_ = std::move(*Audit::open(*database_, clock_));
    for (int i = 1; i <= 5; ++i)
      EXPECT_TRUE(audit_
                      ->append({.actor = "user:ann",
                                .address = "10.0.0.1",
                                .action = "POST /x",
                                .target = "/x/" + std::to_string(i),
                                .status = 200})
                      .ok());
  }
  int64_t broken_at(const std::string& tampering) {
    EXPECT_TRUE(database_->script(tampering).ok());
    return audit_->verify()->broken_at;
  }
  store::ManualClock clock_;
  std::unique_ptr<Audit> audit_;
};

TEST_P(AuditTest, EntriesComeBackInOrder) {
  const auto entries = *audit_->entries(2, 1);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].number, 4);
  EXPECT_EQ(entries[0].target, "/x/4");
  EXPECT_EQ(entries[0].actor, "user:ann");
  EXPECT_EQ(entries[0].unix_ms, clock_.unix_time_ms());
  const AuditVerdict verdict = *audit_->verify();
  EXPECT_EQ(verdict.entries, 5);
  EXPECT_EQ(verdict.broken_at, 0);
  EXPECT_EQ(verdict.last, (*audit_->entries(1, 0))[0].seal);
}

TEST_P(AuditTest, EveryFieldIsSealed) {
  for (const char* change :
       {"actor = 'user:eve'", "address = ''", "action = 'GET /x'", "target = '/y'", "status = 500",
        "unix_ms = unix_ms + 1", "actor = '', address = 'user:ann10.0.0.1'"}) {
    ASSERT_TRUE(database_->script("CREATE TABLE copy AS SELECT * FROM audit").ok());
    EXPECT_EQ(broken_at(std::string("UPDATE audit SET ") + change + " WHERE number = 3"), 3) << change;
    ASSERT_TRUE(
        database_->script("DELETE FROM audit; INSERT INTO audit SELECT * FROM copy; DROP TABLE copy").ok());
    EXPECT_EQ(audit_->verify()->broken_at, 0);
  }
}

TEST_P(AuditTest, WhatIsTakenOutOrMovedIsMissed) {
  EXPECT_EQ(broken_at("DELETE FROM audit WHERE number = 2"), 2);
  EXPECT_EQ(broken_at("UPDATE audit SET number = number - 1 WHERE number > 2"), 2)
      << "closing the gap does not hide it";
}

TEST_P(AuditTest, ManyMayAppendAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([this] {
      for (int i = 0; i < 25; ++i) EXPECT_TRUE(audit_->append({.action = "x"}).ok());
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(audit_->verify()->entries, 105);
  EXPECT_EQ(audit_->verify()->broken_at, 0);
}

TESSERA_ON_EVERY_DATABASE(AuditTest);

}  // namespace
}  // namespace tessera::control
