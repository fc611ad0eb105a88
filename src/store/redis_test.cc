// What only a server can show: its death, its limits; and what a gateway does meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "store/test_servers.h"

namespace tessera::store {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Optional;

class Redis : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!server_.missing().empty()) GTEST_SKIP() << server_.missing();
    state_ = open();
  }
  std::unique_ptr<State> open() {
    auto opened = open_redis(server_.url(), {.retry_after = 1ms});
    EXPECT_TRUE(opened.ok()) << opened.status().to_string();
    return opened.ok() ? std::move(*opened) : nullptr;
  }
  TestRedis server_;
  std::unique_ptr<State> state_;
};

TEST(RedisUrl, IsCheckedAndItsPasswordIsKept) {
  for (const char* wrong : {"http://h", "redis://h:0", "redis://h:x", "redis://h/one", "unix://relative"})
    EXPECT_EQ(open_redis(wrong).status().code(), Code::kInvalidArgument) << wrong;
  EXPECT_EQ(open_redis("rediss://h").status().code(), Code::kUnsupported);
  auto away = open_redis("redis://me:hun%74er2@127.0.0.1:1/3");
  ASSERT_TRUE(away.ok());
  const Status status = (*away)->get("x").status();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("redis://127.0.0.1:1"));
  EXPECT_THAT(status.message(), Not(HasSubstr("hunter2")));
}

TEST_F(Redis, ItsDeathIsUnavailableAndItsReturnIsNoticed) {
  ASSERT_TRUE(state_->set("key", "1").ok());
  server_.kill();
  EXPECT_EQ(state_->get("key").status().code(), Code::kUnavailable);
  EXPECT_EQ(state_->increment("key", 1).status().code(), Code::kUnavailable);
  ASSERT_TRUE(server_.start());
  std::this_thread::sleep_for(5ms);
  const auto value = state_->get("key");
  ASSERT_TRUE(value.ok()) << value.status().to_string();
  EXPECT_EQ(*value, std::nullopt);
  EXPECT_TRUE(state_->set("key", "2").ok());
}

TEST_F(Redis, AServerThatStandsStillIsUnavailable) {
  auto opened = open_redis(server_.url(), {.command_timeout = 50ms, .retry_after = 1ms});
  ASSERT_TRUE((*opened)->set("key", "1").ok());
  server_.signal(SIGSTOP);
  EXPECT_EQ((*opened)->get("key").status().code(), Code::kUnavailable);
  server_.signal(SIGCONT);
  std::this_thread::sleep_for(5ms);
  EXPECT_THAT(*(*opened)->get("key"), Optional(std::string("1")));
}

TEST_F(Redis, GatewaysSeeEachOther) {
  auto other = open();
  EXPECT_TRUE(*state_->compare_and_set("lease", std::nullopt, "a"));
  EXPECT_FALSE(*other->compare_and_set("lease", std::nullopt, "b"));
  EXPECT_EQ(*state_->increment("n", 2), 2);
  EXPECT_EQ(*other->increment("n", 3), 5);
}

TEST_F(Redis, WhileItIsAwayTheFallbackCountsForItself) {
  ManualClock clock;
  auto state = make_fallback_state(*state_, clock);
  EXPECT_EQ(*state->increment("n", 5), 5);
  server_.kill();
  EXPECT_EQ(*state->increment("n", 1, 50ms), 1);
  EXPECT_EQ(*state->increment("n", 1, 50ms), 2);
  ASSERT_TRUE(state->set("key", "own").ok());
  EXPECT_THAT(*state->get("key"), Optional(std::string("own")));
  EXPECT_TRUE(*state->compare_and_set("key", "own", "mine"));
  EXPECT_TRUE(*state->expire("key", 10ms));
  EXPECT_TRUE(*state->compare_and_erase("key", "mine"));
  EXPECT_TRUE(state->erase("key").ok());
  clock.advance(60ms);
  EXPECT_EQ(*state->increment("n", 1), 1);
  ASSERT_TRUE(server_.start());
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(*state->increment("n", 3), 3);
  // The shared state's own refusals are not hidden.
  ASSERT_TRUE(state->set("text", "x").ok());
  EXPECT_EQ(state->increment("text", 1).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::store
