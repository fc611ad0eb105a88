// Tests of what the control plane keeps run on every kind of database.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "store/sqlite_database.h"
#include "store/test_servers.h"

namespace tessera::control {

// An empty database of the parameter's kind. Skipped where its server is not installed.
class DatabaseTest : public testing::TestWithParam<const char*> {
 protected:
  DatabaseTest() {
    if (GetParam() == std::string("postgres")) {
      auto& server = store::shared_server<store::TestPostgres>();
      missing_ = server.missing();
      if (missing_.empty()) database_ = std::move(*store::open_postgres(server.fresh()));
    }
    if (!database_) database_ = std::move(*store::open_sqlite(":memory:"));
  }
  void SetUp() override {
    if (!missing_.empty()) GTEST_SKIP() << missing_;
  }

  std::unique_ptr<store::Database> database_;

 private:
  std::string missing_;
};

#define TESSERA_ON_EVERY_DATABASE(suite)                                            \
  INSTANTIATE_TEST_SUITE_P(Databases, suite, testing::Values("sqlite", "postgres"), \
                           [](const auto& info) { return std::string(info.param); })

}  // namespace tessera::control
