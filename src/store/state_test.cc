// What every store::State must do; each implementation is one parameter.
#include "store/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <thread>
#include <vector>

#include "store/test_servers.h"

namespace tessera::store {
namespace {

using namespace std::chrono_literals;
using ::testing::Optional;

class Fixture {
 public:
  virtual ~Fixture() = default;
  virtual State& state() = 0;
  virtual void pass(std::chrono::milliseconds time) = 0;  // a server's fixture really waits
};

class MemoryFixture final : public Fixture {
 public:
  State& state() override { return *state_; }
  void pass(std::chrono::milliseconds time) override { clock_.advance(time); }

 private:
  ManualClock clock_;
  std::unique_ptr<State> state_ = make_memory_state(clock_);
};

// An empty database of the server for each test.
class RedisFixture final : public Fixture {
 public:
  State& state() override { return *state_; }
  void pass(std::chrono::milliseconds time) override { std::this_thread::sleep_for(time); }

 private:
  static std::string url() {
    static int number = 0;
    return shared_server<TestRedis>().url() + "?db=" + std::to_string(number++ % 16);
  }
  std::unique_ptr<State> state_ = std::move(*open_redis(url()));
};

struct Implementation {
  const char* name;
  std::function<std::unique_ptr<Fixture>()> make;
  std::function<std::string()> missing = [] { return std::string(); };  // why it cannot be tested here
};

class StateConformance : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override {
    if (const std::string missing = GetParam().missing(); !missing.empty()) GTEST_SKIP() << missing;
  }
  std::optional<std::string> get(std::string_view key) {
    auto result = state_.get(key);
    EXPECT_TRUE(result.ok());
    return result.ok() ? *result : std::nullopt;
  }
  std::unique_ptr<Fixture> fixture_ = GetParam().make();
  State& state_ = fixture_->state();  // of a server that is not there: never called
};

TEST_P(StateConformance, SetGetErase) {
  const std::string bytes("\0\xff key", 6);
  EXPECT_EQ(get(bytes), std::nullopt);
  ASSERT_TRUE(state_.set(bytes, bytes).ok());
  EXPECT_THAT(get(bytes), Optional(bytes));
  ASSERT_TRUE(state_.set(bytes, "").ok());
  EXPECT_THAT(get(bytes), Optional(std::string()));
  ASSERT_TRUE(state_.erase(bytes).ok());
  ASSERT_TRUE(state_.erase(bytes).ok());
  EXPECT_EQ(get(bytes), std::nullopt);
}

TEST_P(StateConformance, KeysExpire) {
  ASSERT_TRUE(state_.set("short", "1", 50ms).ok());
  ASSERT_TRUE(state_.set("long", "2", 10min).ok());
  ASSERT_TRUE(state_.set("ever", "3").ok());
  EXPECT_THAT(get("short"), Optional(std::string("1")));
  fixture_->pass(60ms);
  EXPECT_EQ(get("short"), std::nullopt);
  EXPECT_THAT(get("long"), Optional(std::string("2")));
  EXPECT_THAT(get("ever"), Optional(std::string("3")));
  ASSERT_TRUE(state_.set("long", "4", 0ms).ok());
  EXPECT_EQ(get("long"), std::nullopt);
}

TEST_P(StateConformance, SettingAgainReplacesTheTimeToLive) {
  ASSERT_TRUE(state_.set("key", "1", 50ms).ok());
  ASSERT_TRUE(state_.set("key", "2").ok());
  fixture_->pass(60ms);
  EXPECT_THAT(get("key"), Optional(std::string("2")));
}

TEST_P(StateConformance, CompareAndSet) {
  EXPECT_THAT(*state_.compare_and_set("lease", "a", "b"), false);
  EXPECT_THAT(*state_.compare_and_set("lease", std::nullopt, "a", 50ms), true);
  EXPECT_THAT(*state_.compare_and_set("lease", std::nullopt, "b"), false);
  EXPECT_THAT(*state_.compare_and_set("lease", "b", "c"), false);
  EXPECT_THAT(*state_.compare_and_set("lease", "a", "a2", 50ms), true);
  EXPECT_THAT(get("lease"), Optional(std::string("a2")));
  fixture_->pass(60ms);
  EXPECT_THAT(*state_.compare_and_set("lease", "a2", "a3"), false);  // has expired
  EXPECT_THAT(*state_.compare_and_set("lease", std::nullopt, "b"), true);
  EXPECT_THAT(*state_.compare_and_erase("lease", "a"), false);
  EXPECT_THAT(*state_.compare_and_erase("lease", "b"), true);
  EXPECT_THAT(*state_.compare_and_erase("lease", "b"), false);
}

TEST_P(StateConformance, Increment) {
  EXPECT_EQ(*state_.increment("n", 5, 50ms), 5);
  EXPECT_EQ(*state_.increment("n", -7, 10min), -2);  // keeps the first time to live
  EXPECT_THAT(get("n"), Optional(std::string("-2")));
  fixture_->pass(60ms);
  EXPECT_EQ(*state_.increment("n", 1), 1);
  ASSERT_TRUE(state_.set("text", "1x").ok());
  EXPECT_EQ(state_.increment("text", 1).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(*state_.increment("max", std::numeric_limits<int64_t>::max()),
            std::numeric_limits<int64_t>::max());
  EXPECT_EQ(state_.increment("max", 1).status().code(), Code::kInvalidArgument);
  EXPECT_THAT(get("max"), Optional(std::to_string(std::numeric_limits<int64_t>::max())));
}

TEST_P(StateConformance, Expire) {
  EXPECT_THAT(*state_.expire("key", 50ms), false);
  ASSERT_TRUE(state_.set("key", "1").ok());
  EXPECT_THAT(*state_.expire("key", 50ms), true);
  EXPECT_THAT(*state_.expire("key", std::nullopt), true);
  fixture_->pass(60ms);
  EXPECT_THAT(get("key"), Optional(std::string("1")));
  EXPECT_THAT(*state_.expire("key", 0ms), true);
  EXPECT_EQ(get("key"), std::nullopt);
}

TEST_P(StateConformance, CallsAreAtomic) {
  std::vector<std::thread> threads;
  std::atomic<int> won = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        ASSERT_TRUE(state_.increment("sum", 1).ok());
        won += *state_.compare_and_set("lock" + std::to_string(i), std::nullopt, "x");
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(get("sum"), Optional(std::string("2000")));
  EXPECT_EQ(won, 500);
}

INSTANTIATE_TEST_SUITE_P(
    Implementations, StateConformance,
    ::testing::Values(Implementation{"Memory", [] { return std::make_unique<MemoryFixture>(); }},
                      Implementation{"Redis", [] { return std::make_unique<RedisFixture>(); },
                                     [] { return shared_server<TestRedis>().missing(); }}),
    [](const auto& info) { return info.param.name; });

TEST(MemoryState, IsBoundedAndForgetsWhatHasExpired) {
  ManualClock clock;
  auto state = make_memory_state(clock, {.max_entries = 10});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(state->set(std::to_string(i), "x", 50ms).ok());
  EXPECT_EQ(state->set("more", "x").code(), Code::kResourceExhausted);
  EXPECT_TRUE(state->set("3", "y", 50ms).ok());
  clock.advance(60ms);
  for (int i = 10; i < 20; ++i) EXPECT_TRUE(state->set(std::to_string(i), "x").ok());
}

}  // namespace
}  // namespace tessera::store
