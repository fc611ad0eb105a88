#include "control/engine_choice.h"

#include <gmock/gmock.h>

#include "control/circuit_breaker.h"

namespace tessera::control {
namespace {

using ::testing::HasSubstr;
using namespace engine_feature;  // NOLINT: the bits

EngineOption option(std::string name, double token_s, EngineFeatures features = kChat | kText) {
  EngineOption o;
  o.name = std::move(name);
  o.features = features;
  o.first_token_s = 0.2;
  o.measured_bytes = 1000;
  o.token_s = token_s;
  return o;
}
EngineWish wish(EngineFeatures needs = kChat) {
  EngineWish w;
  w.needs = needs;
  w.prompt_bytes = 1000;
  w.answer_tokens = 100;
  return w;
}

TEST(EngineChoice, TheFasterOneAnswersUntilItsQueueEatsTheDifference) {
  std::vector<EngineOption> all = {option("slow", 0.03), option("fast", 0.01)};
  EXPECT_EQ(choose_engine(all, wish()), 1);
  all[1].in_flight = 3;
  EXPECT_EQ(choose_engine(all, wish()), 0);
  all[1].width = 8;  // it answers eight at once
  EXPECT_EQ(choose_engine(all, wish()), 1);
  all[1].waiting = 40;
  EXPECT_EQ(choose_engine(all, wish()), 0);
}

TEST(EngineChoice, AHeldPrefixWeighsAgainstSpeed) {
  std::vector<EngineOption> all = {option("a", 0.02), option("b", 0.019)};
  EngineWish w = wish();
  w.prompt_bytes = 20'000;  // 20 times the prompt that was measured: prefill counts most
  EXPECT_EQ(choose_engine(all, w), 1);
  all[0].held_share = 0.9;
  EXPECT_EQ(choose_engine(all, w), 0);
}

TEST(EngineChoice, WhatWasNeverMeasuredIsTried) {
  std::vector<EngineOption> all = {option("known", 0.02), option("new", 0)};
  all[1].first_token_s = 0;
  all[1].measured_bytes = 0;
  all[0].in_flight = 1;
  EXPECT_EQ(choose_engine(all, wish()), 1);
}

TEST(EngineChoice, AFullCacheMakesSlower) {
  std::vector<EngineOption> all = {option("a", 0.02), option("b", 0.021)};
  all[0].kv_use = 1.0;
  EXPECT_EQ(choose_engine(all, wish()), 1);
}

TEST(EngineChoice, ATieGoesToTheExactOne) {
  std::vector<EngineOption> all = {option("foreign", 0.02), option("own", 0.02)};
  all[1].local_exact = true;
  EXPECT_EQ(choose_engine(all, wish()), 1);
}

TEST(EngineChoice, OnlyWhoHasItAllIsAskedAndTheReasonSaysWhatIsMissing) {
  std::vector<EngineOption> all = {option("fast", 0.01), option("able", 0.05, kChat | kTools)};
  EXPECT_EQ(choose_engine(all, wish(kChat | kTools)), 1);
  all[1].serves = false;
  all[1].why_not = "it drains";
  EXPECT_EQ(choose_engine(all, wish(kChat | kTools)), -1);
  EXPECT_THAT(why_no_engine(all, wish(kChat | kTools)), HasSubstr("fast: lacks tools"));
  EXPECT_THAT(why_no_engine(all, wish(kChat | kTools)), HasSubstr("able: it drains"));
  EXPECT_EQ(feature_list(kLogprobs | kJsonSchema), "logprobs, json_schema");
}

TEST(CircuitBreaker, OpensAfterFailuresInARowAndTriesAgainLaterAndLater) {
  using std::chrono::milliseconds;
  CircuitBreaker breaker({3, milliseconds(1000), milliseconds(3000)});
  MonotonicTime now{};
  breaker.failed(now);
  breaker.failed(now);
  breaker.succeeded();
  breaker.failed(now);
  breaker.failed(now);
  EXPECT_TRUE(breaker.allows(now));
  breaker.failed(now);
  EXPECT_EQ(breaker.state(), CircuitBreaker::State::kOpen);
  EXPECT_FALSE(breaker.allows(now + milliseconds(999)));
  breaker.failed(now + milliseconds(500));  // one that was under way: the pause stays as it is
  now += milliseconds(1000);
  EXPECT_TRUE(breaker.allows(now));
  breaker.begin(now);
  EXPECT_FALSE(breaker.allows(now)) << "one trial at a time";
  breaker.failed(now);
  EXPECT_FALSE(breaker.allows(now + milliseconds(1999)));
  now += milliseconds(2000);
  breaker.begin(now);
  breaker.abandoned(now);  // its client left
  EXPECT_TRUE(breaker.allows(now));
  breaker.begin(now);
  breaker.failed(now);
  EXPECT_FALSE(breaker.allows(now + milliseconds(2999)));
  now += milliseconds(3000);
  breaker.begin(now);
  breaker.succeeded();
  EXPECT_TRUE(breaker.allows(now));
  EXPECT_EQ(breaker.state(), CircuitBreaker::State::kClosed);
}

}  // namespace
}  // namespace tessera::control
