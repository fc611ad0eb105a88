#include "engine/sampling_state.h"

#include <algorithm>

namespace tessera::engine {

void SamplingState::open(const SamplingParams& params, std::span<const TokenId> tokens, int prompt_tokens,
                         std::span<const TokenId> end_tokens) {
  params_ = params;
  prompt_tokens_ = prompt_tokens;
  last_length_ = prompt_tokens + params.max_tokens;
  stops_from_ = prompt_tokens + std::min(params.min_tokens, params.max_tokens);
  has_penalties_ = params_.repetition_penalty != 1.0f || params_.presence_penalty != 0.0f ||
                   params_.frequency_penalty != 0.0f;
  stop_tokens_ = params.stop_token_ids;
  if (!params.ignore_eos) stop_tokens_.insert(stop_tokens_.end(), end_tokens.begin(), end_tokens.end());
  std::sort(stop_tokens_.begin(), stop_tokens_.end());
  stop_tokens_.erase(std::unique(stop_tokens_.begin(), stop_tokens_.end()), stop_tokens_.end());
  if (params.prompt_logprobs) prompt_scores_.resize(static_cast<size_t>(prompt_tokens));
  if (!has_penalties_) return;

  const auto prompt_size = static_cast<size_t>(prompt_tokens);
  std::vector<TokenId> sorted(tokens.begin(), tokens.begin() + prompt_tokens);
  std::sort(sorted.begin(), sorted.end());
  for (TokenId token : sorted) {
    if (counts_.empty() || counts_.back().token != token) counts_.push_back({token, 0, 0});
    ++counts_.back().in_prompt;
  }
  for (TokenId token : tokens.subspan(prompt_size)) count_output(token);
}

void SamplingState::count_output(TokenId token) {
  auto place = std::lower_bound(
      counts_.begin(), counts_.end(), token,
      [](const SampleRequest::TokenCount& entry, TokenId wanted) { return entry.token < wanted; });
  if (place == counts_.end() || place->token != token) place = counts_.insert(place, {token, 0, 0});
  ++place->in_output;
}

int SamplingState::scored_rows(int start, int rows) const {
  if (!scores_prompt()) return 0;
  return std::clamp(prompt_tokens_ - 1 - start, 0, rows);
}

void SamplingState::score_prompt(int row, int position, TokenId target, SampleRequest& request) const {
  request.row = row;
  request.position = position;
  request.target = target;
  request.params = &params_;
}

}  // namespace tessera::engine
