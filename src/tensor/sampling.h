// Choosing a token from a row of logits: host code that every backend shares.
#pragma once

#include <span>
#include <vector>

#include "core/step.h"

namespace tessera::tensor {

// Vectorised passes over a vocabulary row; all of them in a fixed order.
struct VocabKernels {
  bool (*all_finite)(const float* x, int64_t n);
  float (*max)(const float* x, int64_t n);
  void (*exp_shifted)(const float* x, float max, float factor, int64_t n, float* out);
  double (*sum_exp)(const float* x, float max, int64_t n);
};

// Memory that is reused between calls; one per thread.
struct SampleScratch {
  std::vector<float> logits;
  std::vector<float> weights;
  std::vector<uint16_t> bucket;
  std::vector<TokenId> order;
};

// Order of steps: mask (grammar, banned) and bias; repetition, frequency and presence penalties; temperature;
// top-k; top-p within the top-k; min-p relative to the best; then one draw with
// uniform_at(seed, choice, position) over the remaining tokens, best first, equal logits by id. A temperature
// below 1e-5 takes the best token, the lowest id of equals. Log-probabilities are of the logits as given, at
// most 128 alternatives. The token is -1 when the logits are not finite or nothing is allowed.
SampledToken sample_token(std::span<const float> logits, const SampleRequest& request,
                          const VocabKernels& kernels, SampleScratch& scratch);

}  // namespace tessera::tensor
