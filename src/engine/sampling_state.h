// SamplingState: what the tail of a route knows of a sequence to ask for its next token and to judge it.
#pragma once

#include <algorithm>
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
  int tokens_left(int length) const { return last_length_ - length; }
  // Makes of a fresh `request` that for the token at `position`, after batch row `row`. It points into this
  // object until the next accept().
  void next_token(int row, int position, SampleRequest& request) const {
    request.row = row;
    request.position = position;
    request.params = &params_;
    if (has_penalties_) request.counts = counts_;
    if (position < stops_from_) request.banned = stop_tokens_;
  }
  // Takes the token sampled for `position`: counts it and says whether it ends the sequence.
  FinishReason accept(TokenId token, int position) {
    if (has_penalties_) count_output(token);
    if (!stop_tokens_.empty() && std::binary_search(stop_tokens_.begin(), stop_tokens_.end(), token))
      return FinishReason::kStop;
    return tokens_left(position + 1) <= 0 ? FinishReason::kLength : FinishReason::kNone;
  }

  // --- log-probabilities of the prompt ---
  bool scores_prompt() const { return !prompt_scores_.empty(); }
  // Rows of [start, start + rows) whose next token is to be scored: the first `return value` of them.
  int scored_rows(int start, int rows) const;
  void score_prompt(int row, int position, TokenId target, SampleRequest& request) const;
  void keep_score(int position, SampledToken score) {
    prompt_scores_[static_cast<size_t>(position)] = std::move(score);
  }
  // Entry i scores prompt token i; moved out, empty afterwards.
  std::vector<SampledToken> take_prompt_scores() { return std::exchange(prompt_scores_, {}); }

 private:
  void count_output(TokenId token);

  // What every step reads, in one cache line.
  int prompt_tokens_ = 0;
  int last_length_ = 0;  // of the sequence, when max_tokens is reached
  int stops_from_ = 0;   // min_tokens: no stop token at positions before
  bool has_penalties_ = false;
  std::vector<TokenId> stop_tokens_;         // sorted
  std::vector<SampledToken> prompt_scores_;  // [prompt_tokens], empty unless asked for

  std::vector<SampleRequest::TokenCount> counts_;  // sorted by token; empty without penalties
  SamplingParams params_;
};

}  // namespace tessera::engine
