// What every store::Database must do; each implementation is one parameter.
#include "store/database.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "store/sqlite_database.h"
#include "store/test_servers.h"

namespace tessera::store {
namespace {

using ::testing::HasSubstr;

struct Implementation {
  const char* name;
  std::function<Result<std::unique_ptr<Database>>(const std::filesystem::path& folder)> open;
  std::function<std::string()> missing = [] { return std::string(); };  // why it cannot be tested here
};

class DatabaseConformance : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override {
    if (const std::string missing = GetParam().missing(); !missing.empty()) GTEST_SKIP() << missing;
    auto opened = GetParam().open(folder_.path());
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    database_ = std::move(*opened);
    ASSERT_TRUE(database_
                    ->script("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
                             "weight REAL, data BLOB) STRICT")
                    .ok());
  }
  Rows must(std::string_view sql, const std::vector<Value>& params = {}) {
    auto result = database_->execute(sql, params);
    EXPECT_TRUE(result.ok()) << sql << ": " << result.status().to_string();
    return result.ok() ? *result : Rows{};
  }
  int64_t count() { return integer_at(must("SELECT count(*) FROM item").rows.at(0), 0); }

  TestFolder folder_;
  std::unique_ptr<Database> database_;
};

TEST_P(DatabaseConformance, ValuesComeBackAsTheyWere) {
  const std::string text =
      "quote ' and \0 and ünï"
      "code";
  const Blob blob = {0, 1, 255, 0};
  EXPECT_EQ(must("INSERT INTO item VALUES ($1, $2, $3, $4)", {int64_t{-1} << 62, text, 0.1, blob}).changed,
            1);
  EXPECT_EQ(must("INSERT INTO item VALUES ($1, $2, $3, $4)", {1, "second", std::monostate{}, Blob{}}).changed,
            1);
  const Rows rows = must("SELECT id, name, weight, data FROM item ORDER BY id");
  ASSERT_EQ(rows.rows.size(), 2u);
  EXPECT_EQ(rows.changed, 0);
  EXPECT_EQ(rows.rows[0], (Row{int64_t{-1} << 62, text, 0.1, blob}));
  EXPECT_EQ(rows.rows[1], (Row{int64_t{1}, "second", std::monostate{}, Blob{}}));
}

TEST_P(DatabaseConformance, ParametersAreBoundByNumberAndNeverPasted) {
  must("INSERT INTO item (name) VALUES ($1)", {"x'); DROP TABLE item; --"});
  EXPECT_EQ(count(), 1);
  must("INSERT INTO item (id, name) VALUES ($2, $1)", {"nine", 9});
  EXPECT_EQ(must("SELECT id FROM item WHERE name = $1 OR name = $1 || 'x'", {"nine"}).rows[0],
            Row{int64_t{9}});
  EXPECT_EQ(database_->execute("SELECT $1", {1, 2}).status().code(), Code::kInternal);
  EXPECT_EQ(database_->execute("SELECT $1, $2", {1}).status().code(), Code::kInternal);
}

TEST_P(DatabaseConformance, ErrorsHaveTheirCodes) {
  must("INSERT INTO item (name) VALUES ('a')");
  EXPECT_EQ(database_->execute("INSERT INTO item (name) VALUES ('a')").status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(database_->execute("INSERT INTO item (name) VALUES (NULL)").status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(database_->execute("INSERT INTO item (name, weight) VALUES ('b', 'heavy')").status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(database_->execute("SELEKT 1").status().code(), Code::kInternal);
  EXPECT_EQ(database_->execute("SELECT 1; SELECT 2").status().code(), Code::kInternal);
  EXPECT_EQ(database_->execute("").status().code(), Code::kInternal);
  EXPECT_EQ(count(), 1);
}

TEST_P(DatabaseConformance, UpsertAndReturning) {
  const std::string upsert =
      "INSERT INTO item (name, weight) VALUES ($1, $2) "
      "ON CONFLICT (name) DO UPDATE SET weight = item.weight + excluded.weight RETURNING weight";
  EXPECT_EQ(must(upsert, {"a", 1.5}).rows[0], Row{1.5});
  EXPECT_EQ(must(upsert, {"a", 2.0}).rows[0], Row{3.5});
  EXPECT_EQ(must("INSERT INTO item (name) VALUES ('a') ON CONFLICT DO NOTHING").changed, 0);
  EXPECT_EQ(must("DELETE FROM item WHERE name = 'a'").changed, 1);
  EXPECT_EQ(must("DELETE FROM item WHERE name = 'a'").changed, 0);
}

TEST_P(DatabaseConformance, TransactionsAreAllOrNothing) {
  EXPECT_TRUE(database_
                  ->transaction([](Statements& sql) -> Status {
                    TESSERA_RETURN_IF_ERROR(sql.execute("INSERT INTO item (name) VALUES ('a')").status());
                    return sql.execute("INSERT INTO item (name) VALUES ('b')").status();
                  })
                  .ok());
  EXPECT_EQ(count(), 2);
  const Status refused = database_->transaction([](Statements& sql) -> Status {
    TESSERA_RETURN_IF_ERROR(sql.execute("INSERT INTO item (name) VALUES ('c')").status());
    return not_found("the caller's own reason");
  });
  EXPECT_EQ(refused.message(), "the caller's own reason");
  EXPECT_FALSE(database_
                   ->transaction([](Statements& sql) -> Status {
                     TESSERA_RETURN_IF_ERROR(sql.execute("INSERT INTO item (name) VALUES ('d')").status());
                     return sql.execute("INSERT INTO item (name) VALUES ('a')").status();
                   })
                   .ok());
  EXPECT_THROW(database_
                   ->transaction([](Statements& sql) -> Status {
                     EXPECT_TRUE(sql.execute("INSERT INTO item (name) VALUES ('e')").ok());
                     throw 1;
                   })
                   .ok(),
               int);
  EXPECT_EQ(count(), 2);
  must("INSERT INTO item (name) VALUES ('f')");  // the database works on
}

TEST_P(DatabaseConformance, AFailedStatementSpoilsItsTransaction) {
  must("INSERT INTO item (name) VALUES ('a')");
  const Status status = database_->transaction([](Statements& sql) -> Status {
    EXPECT_TRUE(sql.execute("INSERT INTO item (name) VALUES ('b')").ok());
    EXPECT_EQ(sql.execute("INSERT INTO item (name) VALUES ('a')").status().code(), Code::kInvalidArgument);
    EXPECT_EQ(sql.execute("SELECT 1").status().code(), Code::kInvalidArgument);
    EXPECT_EQ(sql.script("DELETE FROM item").code(), Code::kInvalidArgument);
    return {};  // the body has overlooked it
  });
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(count(), 1);
}

TEST_P(DatabaseConformance, RowsNumberThemselvesAndGoWithWhatTheyBelongTo) {
  ASSERT_TRUE(database_
                  ->script("CREATE TABLE part (item INTEGER NOT NULL REFERENCES item (id) ON DELETE CASCADE, "
                           "n INTEGER NOT NULL DEFAULT 7, PRIMARY KEY (item, n)) STRICT; "
                           "CREATE INDEX parts ON part (n) WHERE n > 3")
                  .ok());
  const int64_t first = integer_at(must("INSERT INTO item (name) VALUES ('a') RETURNING id").rows.at(0), 0);
  const int64_t second = integer_at(must("INSERT INTO item (name) VALUES ('b') RETURNING id").rows.at(0), 0);
  EXPECT_GT(second, first);
  must("INSERT INTO part (item) VALUES ($1)", {second});
  EXPECT_EQ(database_->execute("INSERT INTO part (item) VALUES ($1)", {second + 1}).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(must("UPDATE part SET n = n + 1 WHERE n = $1 RETURNING n", {7}).rows,
            (std::vector<Row>{{int64_t{8}}}));
  must("DELETE FROM item WHERE id = $1", {second});
  EXPECT_EQ(integer_at(must("SELECT count(*) FROM part").rows.at(0), 0), 0);
}

TEST_P(DatabaseConformance, TextIsOrderedByItsBytesAndNullsAreComparedAsSuch) {
  must("INSERT INTO item (name) VALUES ('b'), ('B'), ('a'), ('ä')");
  EXPECT_EQ(must("SELECT name FROM item WHERE name > $1 ORDER BY name LIMIT $2", {"B", 2}).rows,
            (std::vector<Row>{{"a"}, {"b"}}));
  must("UPDATE item SET weight = $1 WHERE name = 'a'", {std::monostate{}});
  must("UPDATE item SET weight = $1 WHERE name = 'b'", {2.5});
  EXPECT_EQ(must("SELECT coalesce(sum(weight), 0.0), count(weight) FROM item").rows[0],
            (Row{2.5, int64_t{1}}));
}

TEST_P(DatabaseConformance, ThreadsTakeTurns) {
  must("INSERT INTO item (name, weight) VALUES ('sum', 0)");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i)
        EXPECT_TRUE(database_
                        ->transaction([](Statements& sql) -> Status {
                          TESSERA_ASSIGN_OR_RETURN(const Rows now,
                                                   sql.execute("SELECT weight FROM item WHERE name = 'sum'"));
                          return sql
                              .execute("UPDATE item SET weight = $1 WHERE name = 'sum'",
                                       {real_at(now.rows.at(0), 0) + 1})
                              .status();
                        })
                        .ok());
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(must("SELECT weight FROM item").rows[0], Row{100.0});
}

TEST_P(DatabaseConformance, MigrationsRunOnceAndInOrder) {
  const std::vector<std::string_view> first = {"CREATE TABLE t (a INTEGER) STRICT; INSERT INTO t VALUES (1)"};
  ASSERT_TRUE(migrate(*database_, "part", first).ok());
  ASSERT_TRUE(migrate(*database_, "part", first).ok());
  auto both = first;
  both.push_back("ALTER TABLE t ADD COLUMN b INTEGER; UPDATE t SET b = a + 1");
  ASSERT_TRUE(migrate(*database_, "part", both).ok());
  EXPECT_EQ(must("SELECT a, b FROM t").rows, (std::vector<Row>{{int64_t{1}, int64_t{2}}}));
  // Components are independent.
  ASSERT_TRUE(migrate(*database_, "other", {"CREATE TABLE u (a INTEGER) STRICT"}).ok());

  const Status newer = migrate(*database_, "part", first);
  EXPECT_EQ(newer.code(), Code::kUnsupported);
  EXPECT_THAT(newer.message(), HasSubstr("newer tessera (part version 2, this program knows 1)"));
}

TEST_P(DatabaseConformance, AFailedMigrationLeavesNothing) {
  const Status status =
      migrate(*database_, "part", {"CREATE TABLE t (a INTEGER) STRICT", "CREATE TABLE broken ("});
  EXPECT_THAT(status.message(), HasSubstr("migrating part to version 2"));
  EXPECT_FALSE(database_->execute("SELECT * FROM t").ok());
  EXPECT_TRUE(migrate(*database_, "part", {"CREATE TABLE t (a INTEGER) STRICT"}).ok());
}

INSTANTIATE_TEST_SUITE_P(
    Implementations, DatabaseConformance,
    ::testing::Values(
        Implementation{"SqliteFile", [](auto& folder) { return open_sqlite(folder / "t.db"); }},
        Implementation{"SqliteMemory", [](auto&) { return open_sqlite(":memory:"); }},
        Implementation{"Postgres", [](auto&) { return open_postgres(shared_server<TestPostgres>().fresh()); },
                       [] { return shared_server<TestPostgres>().missing(); }}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera::store
