#include "tensor/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/rng.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/op_test_util.h"

namespace tessera::tensor {
namespace {

class SamplingTest : public testing::Test {
 protected:
  SampledToken sample(const std::vector<float>& logits, int32_t position = 0) {
    request_.params = &params_;
    request_.position = position;
    const KernelTable& k = kernels_for(best_isa());
    return sample_token(logits, request_, {k.all_finite, k.max, k.exp_shifted, k.sum_exp}, scratch_);
  }
  // Shares of tokens over many positions.
  std::map<TokenId, double> shares(const std::vector<float>& logits, int draws = 40000) {
    std::map<TokenId, double> result;
    for (int i = 0; i < draws; ++i) result[sample(logits, i).token] += 1.0 / draws;
    return result;
  }
  SamplingParams params_;
  SampleRequest request_;
  SampleScratch scratch_;
};

TEST_F(SamplingTest, GreedyTakesTheBestAndTheLowestOfEquals) {
  params_.temperature = 0;
  EXPECT_EQ(sample({0.1f, 3.0f, -2.0f, 3.0f}).token, 1);
  params_.logit_bias = {{3, 0.5f}};
  EXPECT_EQ(sample({0.1f, 3.0f, -2.0f, 3.0f}).token, 3);
  const std::vector<TokenId> banned = {3, 1, 900};
  request_.banned = banned;
  EXPECT_EQ(sample({0.1f, 3.0f, -2.0f, 3.0f}).token, 0);
}

TEST_F(SamplingTest, DrawsFollowTheDistribution) {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, -1.0f, 0.5f};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    params_.temperature = temperature;
    double total = 0;
    for (float l : logits) total += std::exp(static_cast<double>(l / temperature));
    const auto seen = shares(logits);
    for (size_t t = 0; t < logits.size(); ++t)
      EXPECT_NEAR(seen.at(static_cast<TokenId>(t)),
                  std::exp(static_cast<double>(logits[t] / temperature)) / total, 0.01);
  }
}

TEST_F(SamplingTest, TopKTopPAndMinPCutTheTail) {
  // probabilities 0.4 0.3 0.2 0.1 at ids 2 0 3 1
  const std::vector<float> logits = {std::log(0.3f), std::log(0.1f), std::log(0.4f), std::log(0.2f)};
  params_.top_k = 2;
  auto seen = shares(logits);
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_NEAR(seen[2], 4.0 / 7, 0.01);
  params_.top_k = 0;
  params_.top_p = 0.65f;
  seen = shares(logits);
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_NEAR(seen[0], 3.0 / 7, 0.01);
  params_.top_p = 0.75f;
  EXPECT_EQ(shares(logits).size(), 3u);
  params_.top_k = 2;  // top-p counts within the top-k: 4/7 < 0.75 keeps both
  EXPECT_EQ(shares(logits).size(), 2u);
  params_.top_p = 0.5f;
  EXPECT_EQ(shares(logits).size(), 1u);
  params_ = {};
  params_.min_p = 0.45f;  // relative to the best: 0.4 * 0.45 = 0.18
  seen = shares(logits);
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen.count(1), 0u);
}

TEST_F(SamplingTest, EqualLogitsGoByIdAndTopKIsExact) {
  const std::vector<float> logits(1000, 1.5f);
  params_.top_k = 3;
  for (const auto& [token, share] : shares(logits, 3000)) {
    EXPECT_LT(token, 3);
    EXPECT_NEAR(share, 1.0 / 3, 0.05);
  }
}

TEST_F(SamplingTest, LargeVocabularyFollowsTheCumulativeSums) {
  const std::vector<float> logits = random_floats(50000, 3, 2.0f);
  std::vector<size_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> cumulative;
  double total = 0;
  for (size_t t : order) cumulative.push_back(total += std::exp(static_cast<double>(logits[t])));
  std::map<TokenId, size_t> rank;
  for (size_t i = 0; i < order.size(); ++i) rank[static_cast<TokenId>(order[i])] = i;
  for (int position = 0; position < 300; ++position) {
    const double target = uniform_at(0, 0, static_cast<uint64_t>(position)) * total;
    const size_t r = rank.at(sample(logits, position).token);
    EXPECT_LE(r == 0 ? 0.0 : cumulative[r - 1], target * (1 + 1e-5));
    EXPECT_GE(cumulative[r], target * (1 - 1e-5));
  }
}

TEST_F(SamplingTest, SeedChoiceAndPositionDecide) {
  const std::vector<float> logits = random_floats(5000, 4);
  params_.seed = 42;
  const TokenId first = sample(logits, 7).token;
  EXPECT_EQ(sample(logits, 7).token, first);
  int different = 0;
  for (int i = 0; i < 20; ++i) different += sample(logits, i).token != first;
  EXPECT_GE(different, 15);
  params_.choice = 1;
  EXPECT_NE(sample(logits, 7).token, first);
}

TEST_F(SamplingTest, Penalties) {
  params_.temperature = 0;
  params_.repetition_penalty = 2.0f;
  const std::vector<SampleRequest::TokenCount> counts = {{0, 1, 0}, {2, 0, 3}};
  request_.counts = counts;
  EXPECT_EQ(sample({3.0f, 1.6f, 3.1f}).token, 1);     // 1.5, 1.6, 1.55
  EXPECT_EQ(sample({-1.0f, -1.5f, -3.0f}).token, 1);  // -2, -1.5, -6
  params_.repetition_penalty = 1.0f;
  params_.frequency_penalty = 0.5f;
  EXPECT_EQ(sample({3.0f, 2.9f, 4.4f}).token, 0);  // the prompt does not count: 3.0, 2.9, 2.9
  params_.frequency_penalty = 0.0f;
  params_.presence_penalty = 1.5f;
  EXPECT_EQ(sample({3.0f, 2.9f, 4.6f}).token, 2);
  EXPECT_EQ(sample({3.0f, 2.9f, 4.4f}).token, 0);
}

TEST_F(SamplingTest, MaskAllowsOnlyItsTokens) {
  const std::vector<float> logits(70, 1.0f);
  const std::vector<uint32_t> mask = {1u << 5, 1u << 31};  // 5 and 63; tokens past the mask are not allowed
  request_.allowed_mask = mask;
  const auto seen = shares(logits, 1000);
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen.count(5), 1u);
  EXPECT_EQ(seen.count(63), 1u);
  const std::vector<uint32_t> nothing = {0, 0, 0};
  request_.allowed_mask = nothing;
  EXPECT_EQ(sample(logits).token, -1);
  params_.temperature = 0;
  EXPECT_EQ(sample(logits).token, -1);
}

TEST_F(SamplingTest, BrokenLogitsGiveNoToken) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(sample({0.0f, bad, 1.0f}).token, -1);
    params_.temperature = 0;
    EXPECT_EQ(sample({0.0f, bad, 1.0f}).token, -1);
  }
}

TEST_F(SamplingTest, SenselessParametersEndInATokenOrNone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits = random_floats(300, 9);
  const std::vector<SampleRequest::TokenCount> counts = {{0, 1, 0}, {2, 0, 3}, {400, 1, 1}, {-5, 1, 1}};
  request_.counts = counts;
  for (const float bad : {nan, 0.0f, -1.0f, 1e-40f, 3e38f, std::numeric_limits<float>::infinity()}) {
    for (float SamplingParams::*field :
         {&SamplingParams::temperature, &SamplingParams::top_p, &SamplingParams::min_p,
          &SamplingParams::repetition_penalty, &SamplingParams::presence_penalty,
          &SamplingParams::frequency_penalty}) {
      params_ = {};
      params_.*field = bad;
      params_.logit_bias = {{1, bad}};
      const TokenId token = sample(logits).token;
      EXPECT_TRUE(token >= -1 && token < 300) << bad;
    }
  }
}

TEST_F(SamplingTest, LogprobsAreOfTheRawLogits) {
  const std::vector<float> logits = {1.0f, 0.0f, 2.0f, 2.0f};
  params_.temperature = 0;
  params_.logit_bias = {{1, 50.0f}};
  EXPECT_FALSE(sample(logits).has_logprobs);
  params_.top_logprobs = 3;
  const SampledToken result = sample(logits);
  EXPECT_EQ(result.token, 1);
  ASSERT_TRUE(result.has_logprobs);
  const double total = std::log(std::exp(1.0) + 1.0 + 2 * std::exp(2.0));
  EXPECT_NEAR(static_cast<double>(result.logprobs.logprob), -total, 1e-6);
  ASSERT_EQ(result.logprobs.top.size(), 3u);
  EXPECT_EQ(result.logprobs.top[0].first, 2);
  EXPECT_EQ(result.logprobs.top[1].first, 3);
  EXPECT_EQ(result.logprobs.top[2].first, 0);
  EXPECT_NEAR(static_cast<double>(result.logprobs.top[2].second), 1.0 - total, 1e-6);
}

TEST_F(SamplingTest, ScoresAGivenToken) {
  request_.target = 1;
  const SampledToken result = sample({1.0f, 0.0f});
  EXPECT_EQ(result.token, 1);
  ASSERT_TRUE(result.has_logprobs);
  EXPECT_NEAR(static_cast<double>(result.logprobs.logprob), -std::log(1.0 + std::exp(1.0)), 1e-6);
  request_.target = 2;
  EXPECT_EQ(sample({1.0f, 0.0f}).token, -1);
}

class SampleOpTest : public OpTest {};

TEST_P(SampleOpTest, SameTokensOnEveryInstructionSet) {
  const auto backend = make(3);
  const auto portable = reference_backend();
  constexpr int64_t kRows = 6, kVocab = 3001;
  std::vector<float> logits = random_floats(kRows * kVocab, 12, 3.0f);
  std::vector<SamplingParams> params(kRows);
  params[1].temperature = 0;
  params[2].top_k = 20;
  params[3].top_p = 0.9f;
  params[4].min_p = 0.05f;
  for (SamplingParams& p : params) p.top_logprobs = 5;
  std::vector<SampleRequest> requests(kRows);
  for (size_t round = 0; round < 30; ++round) {
    for (size_t i = 0; i < kRows; ++i) {
      requests[i].position = static_cast<int32_t>(round);
      requests[i].params = &params[i];
    }
    std::vector<SampledToken> a(kRows), b(kRows);
    backend->sample(tensor_of(logits, kRows, kVocab), requests, a);
    run(*backend);
    portable->sample(tensor_of(logits, kRows, kVocab), requests, b);
    run(*portable);
    for (size_t i = 0; i < kRows; ++i) {
      EXPECT_GE(a[i].token, 0);
      EXPECT_EQ(a[i].token, b[i].token);
      EXPECT_EQ(a[i].logprobs.logprob, b[i].logprobs.logprob);
      EXPECT_EQ(a[i].logprobs.top, b[i].logprobs.top);
    }
  }
}

TESSERA_FOR_EVERY_ISA(SampleOpTest);

}  // namespace
}  // namespace tessera::tensor
