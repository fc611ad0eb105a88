// What only a SQLite file can show: durability, permissions, other processes, damaged files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/files.h"
#include "store/sqlite_database.h"
#include "store/test_util.h"

namespace tessera::store {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Database> must_open(const std::filesystem::path& file, SqliteOptions options = {}) {
  auto opened = open_sqlite(file, options);
  EXPECT_TRUE(opened.ok()) << opened.status().to_string();
  return opened.ok() ? std::move(*opened) : nullptr;
}

TEST(Sqlite, IsInWalModeFullySyncedAndPrivate) {
  TestFolder folder;
  const auto file = folder.path() / "deep" / "state.db";
  auto database = must_open(file);
  EXPECT_EQ(text_at(database->execute("PRAGMA journal_mode")->rows[0], 0), "wal");
  EXPECT_EQ(integer_at(database->execute("PRAGMA synchronous")->rows[0], 0), 2);  // FULL
  EXPECT_EQ(integer_at(database->execute("PRAGMA foreign_keys")->rows[0], 0), 1);
  ASSERT_TRUE(database->script("CREATE TABLE t (a INTEGER) STRICT").ok());
  for (const char* name : {"state.db", "state.db-wal"}) {
    struct stat info {};
    ASSERT_EQ(::stat((file.parent_path() / name).c_str(), &info), 0) << name;
    EXPECT_EQ(info.st_mode & 0777, 0600u) << name;
  }
  EXPECT_EQ(database->description(), file.string());
}

TEST(Sqlite, WhatHasCommittedSurvivesAKill) {
  TestFolder folder;
  const auto file = folder.path() / "t.db";
  must_open(file)->script("CREATE TABLE t (a INTEGER) STRICT").ok();
  int done[2];
  ASSERT_EQ(::pipe(done), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto opened = open_sqlite(file);
    if (!opened.ok()) _exit(1);
    for (char i = 0; i < 10; ++i) {
      if (!(*opened)->execute("INSERT INTO t VALUES ($1)", {i}).ok()) _exit(1);
      if (::write(done[1], &i, 1) != 1) _exit(1);
    }
    (void)(*opened)->transaction([&](Statements& sql) {
      (void)sql.execute("INSERT INTO t VALUES (99)");
      const char open = 99;
      if (::write(done[1], &open, 1) != 1) _exit(1);
      for (;;) ::pause();
      return Status();
    });
    _exit(0);
  }
  ::close(done[1]);
  char seen = 0;
  while (::read(done[0], &seen, 1) == 1 && seen != 99) {
  }
  ::close(done[0]);
  EXPECT_EQ(seen, 99);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  auto database = must_open(file);
  EXPECT_EQ(database->execute("SELECT count(*), max(a) FROM t")->rows[0], (Row{int64_t{10}, int64_t{9}}));
}

TEST(Sqlite, ALockedFileIsUnavailableAfterTheTimeout) {
  TestFolder folder;
  const auto file = folder.path() / "t.db";
  auto one = must_open(file), other = must_open(file, {.busy_timeout_ms = 20});
  ASSERT_TRUE(one->script("CREATE TABLE t (a INTEGER) STRICT").ok());
  const Status status = one->transaction([&](Statements& sql) -> Status {
    TESSERA_RETURN_IF_ERROR(sql.execute("INSERT INTO t VALUES (1)").status());
    EXPECT_EQ(other->execute("INSERT INTO t VALUES (2)").status().code(), Code::kUnavailable);
    // Readers are not held up, and see what was committed.
    EXPECT_EQ(integer_at(other->execute("SELECT count(*) FROM t")->rows[0], 0), 0);
    return {};
  });
  EXPECT_TRUE(status.ok());
  EXPECT_TRUE(other->execute("INSERT INTO t VALUES (2)").ok());
}

TEST(Sqlite, OtherFilesAreRefused) {
  TestFolder folder;
  const auto file = folder.path() / "t.db";
  ASSERT_TRUE(write_file_atomic(file, std::string(8192, 'x')).ok());
  const auto opened = open_sqlite(file);
  EXPECT_EQ(opened.status().code(), Code::kCorrupt);
  EXPECT_THAT(opened.status().message(), HasSubstr("t.db"));
  EXPECT_EQ(open_sqlite(folder.path()).status().code(), Code::kIo);
  EXPECT_EQ(open_sqlite("/proc/no/such/place.db").status().code(), Code::kIo);
}

}  // namespace
}  // namespace tessera::store
