// Sampling parameters of one sequence, validated by the API and carried to the tail of its route.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/types.h"

namespace tessera {

struct SamplingParams {
  float temperature = 1.0f;  // 0 = greedy
  int top_k = 0;             // 0 = off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty =
      1.0f;  // divides positive, multiplies negative logits of tokens in prompt or output (CTRL)
  float presence_penalty = 0.0f;  // over output tokens
  float frequency_penalty = 0.0f;
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;
  uint32_t choice = 0;  // index among `n`: part of the random counter (seed, choice, position)
  int max_tokens = 16;
  int min_tokens = 0;       // stop tokens are masked before this many tokens
  bool ignore_eos = false;  // the model's own end tokens do not stop
  std::vector<TokenId>
      stop_token_ids;     // stop as well; the model's end tokens are added by the engine unless ignore_eos
  int top_logprobs = -1;  // -1 none, 0 the chosen token's only, n the n best as well
  bool prompt_logprobs = false;  // score the prompt too (bypasses prefix reuse)
};

// Log-probabilities of the model's own distribution: before temperature, penalties, bias and truncation.
struct TokenLogprobs {
  float logprob = 0;
  std::vector<std::pair<TokenId, float>> top;  // best first
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };

}  // namespace tessera
