// What only a server can show: its death, its silence, other gateways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "store/test_servers.h"

namespace tessera::store {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

class Postgres : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!server().missing().empty()) GTEST_SKIP() << server().missing();
    url_ = server().fresh();
    database_ = open({});
    ASSERT_NE(database_, nullptr);
    ASSERT_TRUE(database_->script("CREATE TABLE t (a INTEGER NOT NULL UNIQUE, s TEXT) STRICT").ok());
  }
  static TestPostgres& server() { return shared_server<TestPostgres>(); }
  std::unique_ptr<Database> open(PostgresOptions options) {
    options.retry_after = 1ms;
    auto opened = open_postgres(url_, options);
    EXPECT_TRUE(opened.ok()) << opened.status().to_string();
    return opened.ok() ? std::move(*opened) : nullptr;
  }
  std::string url_;
  std::unique_ptr<Database> database_;
};

TEST_F(Postgres, NamesTheServerWithoutItsPassword) {
  const auto opened = open_postgres("postgresql://me:hunter2@127.0.0.1:1/db?connect_timeout=2");
  EXPECT_EQ(opened.status().code(), Code::kUnavailable);
  EXPECT_THAT(opened.status().message(), HasSubstr("postgresql://127.0.0.1:1/db"));
  EXPECT_THAT(opened.status().message(), Not(HasSubstr("hunter2")));
  const auto wrong = open_postgres("postgresql://me:hunter2@h/db?no_such=1");
  EXPECT_EQ(wrong.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(wrong.status().message(), Not(HasSubstr("hunter2")));
  EXPECT_EQ(database_->description().find("tessera@"), std::string::npos);
}

TEST_F(Postgres, SumsAndBooleansAreNumbers) {
  ASSERT_TRUE(database_->execute("INSERT INTO t VALUES (1), (2)").ok());
  EXPECT_EQ(database_->execute("SELECT sum(a), count(*), max(a) > 1, avg(a) FROM t")->rows[0],
            (Row{int64_t{3}, int64_t{2}, int64_t{1}, 1.5}));
}

TEST_F(Postgres, TextIsOrderedByItsBytes) {
  ASSERT_TRUE(database_->execute("INSERT INTO t VALUES (1, 'b'), (2, 'B'), (3, 'a')").ok());
  EXPECT_EQ(database_->execute("SELECT s FROM t ORDER BY s")->rows, (std::vector<Row>{{"B"}, {"a"}, {"b"}}));
}

TEST_F(Postgres, WhatTextCannotHoldIsRefused) {
  EXPECT_EQ(database_->execute("INSERT INTO t VALUES (1, $1)", {std::string("a\0b", 3)}).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(database_->execute("INSERT INTO t VALUES (1, $1)", {"\xff"}).status().code(),
            Code::kInvalidArgument);
}

TEST_F(Postgres, TransactionsOfSeveralGatewaysTakeTurns) {
  ASSERT_TRUE(database_->execute("INSERT INTO t VALUES (0)").ok());
  std::vector<std::thread> gateways;
  for (int g = 0; g < 4; ++g)
    gateways.emplace_back([&] {
      auto own = open({});
      for (int i = 0; i < 25; ++i)
        EXPECT_TRUE(
            own->transaction([](Statements& sql) -> Status {
                 TESSERA_ASSIGN_OR_RETURN(const Rows now, sql.execute("SELECT a FROM t"));
                 return sql.execute("UPDATE t SET a = $1", {integer_at(now.rows.at(0), 0) + 1}).status();
               })
                .ok());
    });
  for (auto& gateway : gateways) gateway.join();
  EXPECT_EQ(integer_at(database_->execute("SELECT a FROM t")->rows.at(0), 0), 100);
}

TEST_F(Postgres, WhoHoldsTheTurnTooLongMakesOthersUnavailable) {
  auto other = open({.lock_timeout = 50ms});
  EXPECT_TRUE(database_
                  ->transaction([&](Statements&) -> Status {
                    EXPECT_EQ(other->transaction([](Statements&) { return Status(); }).code(),
                              Code::kUnavailable);
                    return {};
                  })
                  .ok());
  EXPECT_TRUE(other->transaction([](Statements&) { return Status(); }).ok());
}

TEST_F(Postgres, AServerThatStandsStillIsUnavailable) {
  auto own = open({.connect_timeout = 2s, .statement_timeout = 100ms});
  server().signal(SIGSTOP);
  const Status status = own->execute("SELECT 1").status();
  server().signal(SIGCONT);
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("does not answer"));
  EXPECT_TRUE(own->execute("SELECT 1").ok());
}

TEST_F(Postgres, MorePreparedStatementsThanAreKept) {
  for (int i = 0; i < 600; ++i)
    ASSERT_EQ(integer_at(database_->execute("SELECT " + std::to_string(i))->rows.at(0), 0), i);
}

// Writers under load while the server is killed, twice: everything that was acknowledged is there, nothing is
// there that was not asked for, and the writers go on by themselves.
TEST_F(Postgres, WhatWasAcknowledgedSurvivesAKill) {
  std::atomic<bool> stop = false;
  std::atomic<int> refused = 0;
  std::vector<std::set<int64_t>> acknowledged(3);
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w)
    writers.emplace_back([&, w] {
      auto own = open({});
      for (int64_t i = w; !stop; i += 3) {
        Status status = i % 2 == 0 ? own->execute("INSERT INTO t VALUES ($1)", {i}).status()
                                   : own->transaction([&](Statements& sql) {
                                       return sql.execute("INSERT INTO t VALUES ($1)", {i}).status();
                                     });
        if (status.ok()) {
          acknowledged[static_cast<size_t>(w)].insert(i);
          continue;
        }
        EXPECT_EQ(status.code(), Code::kUnavailable) << status.to_string();
        ++refused;
        std::this_thread::sleep_for(2ms);
      }
    });
  const auto wait_for = [&](const std::function<bool()>& what) {
    for (int i = 0; i < 3000 && !what(); ++i) std::this_thread::sleep_for(10ms);
    EXPECT_TRUE(what());
  };
  const auto rows = [&] {
    const auto count = database_->execute("SELECT count(*) FROM t");
    return count.ok() ? integer_at(count->rows.at(0), 0) : int64_t{-1};
  };
  for (int round = 0; round < 2; ++round) {
    const int64_t before = rows();
    wait_for([&] { return rows() > before + 20; });
    const int refused_before = refused;
    server().kill();
    wait_for([&] { return refused > refused_before; });
    EXPECT_EQ(database_->execute("SELECT 1").status().code(), Code::kUnavailable);
    ASSERT_TRUE(server().start());
  }
  const int64_t before = rows();
  wait_for([&] { return rows() > before + 20; });
  stop = true;
  for (auto& writer : writers) writer.join();
  std::set<int64_t> there;
  const auto found = database_->execute("SELECT a FROM t");
  ASSERT_TRUE(found.ok());
  for (const Row& row : found->rows) there.insert(integer_at(row, 0));
  size_t count = 0;
  for (const auto& own : acknowledged)
    for (const int64_t i : own) {
      ++count;
      EXPECT_EQ(there.count(i), 1u) << i;
    }
  EXPECT_GT(count, 60u);
}

}  // namespace
}  // namespace tessera::store
