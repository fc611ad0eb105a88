#include "tensor/sampling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/rng.h"

namespace tessera::tensor {

namespace {

constexpr float kGreedyBelow = 1e-5f;  // temperatures whose inverse would leave the range of float
constexpr int kMaxTopLogprobs = 128;
constexpr float kNever = -std::numeric_limits<float>::infinity();

bool in_vocabulary(TokenId token, std::span<const float> logits) {
  return token >= 0 && static_cast<size_t>(token) < logits.size();
}

// Masks, bias and penalties; returns the row to sample from: `raw` itself where nothing changes it.
std::span<const float> adjusted(std::span<const float> raw, const SampleRequest& request,
                                std::vector<float>& copy) {
  const SamplingParams& params = *request.params;
  if (request.allowed_mask.empty() && request.banned.empty() && params.logit_bias.empty() &&
      request.counts.empty())
    return raw;
  copy.assign(raw.begin(), raw.end());
  if (!request.allowed_mask.empty()) {
    for (size_t t = 0; t < copy.size(); ++t) {
      const size_t word = t / 32;
      if (word >= request.allowed_mask.size() || ((request.allowed_mask[word] >> (t % 32)) & 1u) == 0)
        copy[t] = kNever;
    }
  }
  // Parameters may come from a peer: what makes no number makes no token.
  const auto change = [&copy](TokenId token, float logit) {
    copy[static_cast<size_t>(token)] = std::isnan(logit) ? kNever : logit;
  };
  for (TokenId token : request.banned)
    if (in_vocabulary(token, raw)) copy[static_cast<size_t>(token)] = kNever;
  for (const auto& [token, bias] : params.logit_bias)
    if (in_vocabulary(token, raw)) change(token, copy[static_cast<size_t>(token)] + bias);
  for (const SampleRequest::TokenCount& seen : request.counts) {
    if (!in_vocabulary(seen.token, raw)) continue;
    float logit = copy[static_cast<size_t>(seen.token)];
    if (seen.in_prompt + seen.in_output > 0)
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (seen.in_output > 0) {
      logit -= params.frequency_penalty * static_cast<float>(seen.in_output);
      logit -= params.presence_penalty;
    }
    change(seen.token, logit);
  }
  return copy;
}

// Tokens from best to worst, sorted only as far as somebody looks: a counting sort into buckets by the
// distance to the best logit, each bucket sorted when it is reached.
class Ranking {
 public:
  Ranking(std::span<const float> logits, float best, float inverse_temperature, const VocabKernels& kernels,
          SampleScratch& scratch)
      : logits_(logits), weights_(scratch.weights), order_(scratch.order) {
    const size_t n = logits.size();
    weights_.resize(n);
    kernels.exp_shifted(logits.data(), best, inverse_temperature, static_cast<int64_t>(n), weights_.data());
    scratch.bucket.resize(n);
    for (size_t t = 0; t < n; ++t) {
      const float distance = (best - logits[t]) * inverse_temperature * kBucketsPerNat;
      const int b = distance < kBuckets - 1 ? static_cast<int>(distance)
                    : logits[t] == kNever   ? kBuckets
                                            : kBuckets - 1;
      scratch.bucket[t] = static_cast<uint16_t>(b);
      ++begin_[static_cast<size_t>(b) + 1];
      mass_[static_cast<size_t>(b)] += static_cast<double>(weights_[t]);
    }
    for (size_t b = 0; b <= kBuckets; ++b) begin_[b + 1] += begin_[b];
    order_.resize(n);
    std::array<size_t, kBuckets + 1> next;
    std::copy(begin_.begin(), begin_.begin() + kBuckets + 1, next.begin());
    for (size_t t = 0; t < n; ++t) order_[next[scratch.bucket[t]]++] = static_cast<TokenId>(t);
  }

  size_t size() const { return begin_[kBuckets]; }  // tokens that are allowed at all
  double total() const {
    double sum = 0;
    for (int b = 0; b < kBuckets; ++b) sum += mass_[static_cast<size_t>(b)];
    return sum;
  }
  // i must not skip ahead of sorted_to() by more than one bucket: walk from 0.
  TokenId token(size_t i) {
    while (i >= begin_[sorted_]) sort_next();
    return order_[i];
  }
  double weight(TokenId token) const { return static_cast<double>(weights_[static_cast<size_t>(token)]); }

  // The token at which the running sum of weights, best first, passes `target`.
  TokenId at_mass(double target) {
    double before = 0;
    size_t last = 0;
    for (size_t b = 0; b < kBuckets; ++b) {
      if (begin_[b] == begin_[b + 1]) continue;
      last = b;
      if (before + mass_[b] > target) break;
      before += mass_[b];
    }
    sort_bucket(last);
    TokenId chosen = order_[begin_[last]];
    for (size_t i = begin_[last]; i < begin_[last + 1]; ++i) {
      if (weight(order_[i]) <= 0) break;
      chosen = order_[i];
      before += weight(chosen);
      if (before > target) break;
    }
    return chosen;
  }

 private:
  static constexpr int kBuckets = 1024;
  static constexpr float kBucketsPerNat = 16.0f;

  void sort_bucket(size_t b) {
    std::sort(order_.begin() + static_cast<std::ptrdiff_t>(begin_[b]),
              order_.begin() + static_cast<std::ptrdiff_t>(begin_[b + 1]), [this](TokenId x, TokenId y) {
                const float a = logits_[static_cast<size_t>(x)];
                const float c = logits_[static_cast<size_t>(y)];
                return a != c ? a > c : x < y;
              });
  }
  void sort_next() { sort_bucket(sorted_++); }

  std::span<const float> logits_;
  std::vector<float>& weights_;
  std::vector<TokenId>& order_;
  std::array<size_t, kBuckets + 2> begin_{};  // the last bucket holds what is not allowed
  std::array<double, kBuckets + 1> mass_{};
  size_t sorted_ = 0;  // buckets [0, sorted_) are sorted
};

TokenId draw(std::span<const float> logits, const SampleRequest& request, const VocabKernels& kernels,
             SampleScratch& scratch) {
  const SamplingParams& params = *request.params;
  const float best = kernels.max(logits.data(), static_cast<int64_t>(logits.size()));
  if (!std::isfinite(best)) return -1;
  if (!(params.temperature >= kGreedyBelow))
    return static_cast<TokenId>(std::find(logits.begin(), logits.end(), best) - logits.begin());

  Ranking ranking(logits, best, 1.0f / params.temperature, kernels, scratch);
  const double uniform = uniform_at(params.seed, params.choice, static_cast<uint64_t>(request.position));
  const bool limited = params.top_k > 0 && static_cast<size_t>(params.top_k) < ranking.size();
  const bool truncated = params.top_p < 1.0f || params.min_p > 0.0f;
  if (!limited && !truncated) return ranking.at_mass(uniform * ranking.total());

  const size_t candidates = limited ? static_cast<size_t>(params.top_k) : ranking.size();
  double mass = 0;
  if (limited) {
    for (size_t i = 0; i < candidates; ++i) mass += ranking.weight(ranking.token(i));
  } else {
    mass = ranking.total();
  }
  size_t kept = 0;
  double kept_mass = 0;
  const double enough = params.top_p < 1.0f ? static_cast<double>(params.top_p) * mass
                                            : std::numeric_limits<double>::infinity();
  while (kept < candidates) {
    const double weight = ranking.weight(ranking.token(kept));
    if (kept > 0 && weight < static_cast<double>(params.min_p)) break;
    kept_mass += weight;
    ++kept;
    if (kept_mass >= enough) break;
  }
  double sum = 0;
  TokenId chosen = ranking.token(0);
  for (size_t i = 0; i < kept; ++i) {
    const double weight = ranking.weight(ranking.token(i));
    if (weight <= 0) break;
    chosen = ranking.token(i);
    sum += weight;
    if (sum > uniform * kept_mass) break;
  }
  return chosen;
}

std::vector<std::pair<TokenId, float>> best_tokens(std::span<const float> logits, size_t count) {
  const auto better = [](const std::pair<TokenId, float>& a, const std::pair<TokenId, float>& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  };
  std::vector<std::pair<TokenId, float>> best;
  for (size_t t = 0; t < logits.size() && count > 0; ++t) {
    if (best.size() == count && logits[t] <= best.back().second) continue;
    const std::pair<TokenId, float> entry{static_cast<TokenId>(t), logits[t]};
    best.insert(std::upper_bound(best.begin(), best.end(), entry, better), entry);
    if (best.size() > count) best.pop_back();
  }
  return best;
}

}  // namespace

SampledToken sample_token(std::span<const float> logits, const SampleRequest& request,
                          const VocabKernels& kernels, SampleScratch& scratch) {
  SampledToken result;
  const SamplingParams& params = *request.params;
  const auto n = static_cast<int64_t>(logits.size());
  if (!kernels.all_finite(logits.data(), n)) return result;
  if (request.target >= 0) {
    if (!in_vocabulary(request.target, logits)) return result;
    result.token = request.target;
  } else {
    result.token = draw(adjusted(logits, request, scratch.logits), request, kernels, scratch);
    if (result.token < 0) return result;
  }
  if (request.target < 0 && params.top_logprobs < 0) return result;

  const float best = kernels.max(logits.data(), n);
  const double log_sum = static_cast<double>(best) + std::log(kernels.sum_exp(logits.data(), best, n));
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - log_sum); };
  result.has_logprobs = true;
  result.logprobs.logprob = logprob(logits[static_cast<size_t>(result.token)]);
  result.logprobs.top =
      best_tokens(logits, static_cast<size_t>(std::clamp(params.top_logprobs, 0, kMaxTopLogprobs)));
  for (auto& [token, value] : result.logprobs.top) value = logprob(value);
  return result;
}

}  // namespace tessera::tensor
