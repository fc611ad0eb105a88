// SamplingState: what the tail of a route knows of a sequence to ask for its next token and to judge it.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "core/sampling.h"
#include "core/step.h"

namespace tessera::engine {

// One thread, its engine's.
class SamplingState {
 public:
  // `tokens`: prompt and committed output; `end_tokens`: the model's own.
  void open(const SamplingParams& params, std::span<const TokenId> tokens, int prompt_tokens,
            std::span<const TokenId> end_tokens);

  // Output tokens still allowed when the sequence has `length` tokens.
  int tokens_left(int length) const { return params_.max_tokens - (length - prompt_tokens_); }
  // The request for the token at `position`, after batch row `row`. Points into this object until the next
  // accept().
  SampleRequest next_token(int row, int position) const;
  // Takes the token sampled for `position`: counts it and says whether it ends the sequence.
  FinishReason accept(TokenId token, int position);

  // --- log-probabilities of the prompt ---
  bool scores_prompt() const { return !prompt_scores_.empty(); }
  // Rows of [start, start + rows) whose next token is to be scored: the first `return value` of them.
  int scored_rows(int start, int rows) const;
  SampleRequest score_prompt(int row, int position, TokenId target) const;
  void keep_score(int position, SampledToken score) {
    prompt_scores_[static_cast<size_t>(position)] = std::move(score);
  }
  // Entry i scores prompt token i; moved out, empty afterwards.
  std::vector<SampledToken> take_prompt_scores() { return std::exchange(prompt_scores_, {}); }

 private:
  bool has_penalties() const {
    return params_.repetition_penalty != 1.0f || params_.presence_penalty != 0.0f ||
           params_.frequency_penalty != 0.0f;
  }
  void count_output(TokenId token);

  SamplingParams params_;
  int prompt_tokens_ = 0;
  std::vector<TokenId> stop_tokens_;               // sorted
  std::vector<SampleRequest::TokenCount> counts_;  // sorted by token; empty without penalties
  std::vector<SampledToken> prompt_scores_;        // [prompt_tokens], empty unless asked for
};

}  // namespace tessera::engine
