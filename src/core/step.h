// What crosses between the scheduler, a stage and, later, the wire: one batch of steps for one block range.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/sampling.h"
#include "core/types.h"

namespace tessera {

// One sequence's share of a batch: `rows` consecutive rows of the batch, at positions [start, start + rows).
struct StepSequence {
  SessionId session = 0;
  Epoch epoch = 0;
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t start = 0;         // KV positions before it are valid; the step writes [start, start + rows)
  int32_t rope_variant = 0;  // which frequency table (Phi-3: short 0, long 1), fixed when the session opens
  std::span<const int32_t> pages;  // page table: page i holds positions [16 i, 16 i + 16); valid until wait()
};

// Asks the tail for a token (or for the probability of a given one) after row `row` of the batch.
struct SampleRequest {
  int32_t row = 0;
  int32_t position = 0;  // position of the token to be sampled: the random counter
  TokenId target = -1;   // >= 0: score this token instead of sampling
  const SamplingParams* params = nullptr;
  // Penalties look at these (token, times in prompt, times in output); sorted by token; empty when no penalty
  // is set.
  struct TokenCount {
    TokenId token;
    int32_t in_prompt;
    int32_t in_output;
  };
  std::span<const TokenCount> counts;
  std::span<const TokenId> banned;         // not to be sampled now (stop tokens before min_tokens)
  std::span<const uint32_t> allowed_mask;  // bit t set = token t allowed (grammar); empty = all
};

struct SampledToken {
  TokenId token = -1;
  bool has_logprobs = false;
  TokenLogprobs logprobs;
};

struct StepPlan {
  int32_t rows = 0;
  std::vector<TokenId> tokens;  // [rows] at the head, empty elsewhere
  std::span<const float>
      hidden;  // [rows, hidden_size] residual stream, empty at the head; valid until wait()
  std::vector<StepSequence> sequences;  // ascending first_row, covering all rows
  std::vector<SampleRequest> samples;   // tail only
  bool all_logits = false;              // tail only: return the logits of every row (the `logits` verb)
};

struct StepResult {
  std::vector<float> hidden;          // [rows, hidden_size], unless this stage is the tail
  std::vector<SampledToken> sampled;  // one per SampleRequest
  std::vector<float> logits;          // [rows, vocab] if all_logits
};

}  // namespace tessera
