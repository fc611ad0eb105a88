#include "sim/reference.h"

#include <algorithm>
#include <map>

namespace tessera::sim {
namespace {

using engine::toy::mix;

// The toy model's rows one after another: each block mixes a row with all rows before it, which it folds.
class Rows {
 public:
  Rows(const engine::toy::ToyOptions& options, int rope_variant)
      : variant_(rope_variant), before_(static_cast<size_t>(options.num_blocks), 0) {}
  uint64_t next(TokenId token) {
    uint64_t x = engine::toy::embed(token, position_++, variant_);
    for (size_t block = 0; block < before_.size(); ++block) {
      before_[block] = mix(before_[block], x);
      x = mix(mix(x, before_[block]), block);
    }
    return x;
  }

 private:
  const int variant_;
  int position_ = 0;
  std::vector<uint64_t> before_;
};

}  // namespace

Answer reference_answer(const cluster::SessionRequest& request, const engine::toy::ToyOptions& options) {
  const SamplingParams& params = request.params;
  std::vector<TokenId> stops = params.stop_token_ids;
  if (!params.ignore_eos) stops.insert(stops.end(), options.end_tokens.begin(), options.end_tokens.end());
  const bool penalties =
      params.repetition_penalty != 1 || params.presence_penalty != 0 || params.frequency_penalty != 0;
  const int max_length = static_cast<int>(request.prompt.size()) + params.max_tokens;
  Rows rows(options, engine::toy::toy_spec(options).rope_variant(max_length));
  uint64_t row = 0;
  std::map<TokenId, std::pair<int, int>> seen;
  for (TokenId token : request.prompt) {
    row = rows.next(token);
    ++seen[token].first;
  }
  Answer answer;
  while (std::ssize(answer.tokens) < params.max_tokens) {
    SampleRequest sample;
    sample.position = static_cast<int>(request.prompt.size() + answer.tokens.size());
    sample.params = &params;
    std::vector<SampleRequest::TokenCount> counts;
    if (penalties)
      for (const auto& [token, count] : seen) counts.push_back({token, count.first, count.second});
    sample.counts = counts;
    if (std::ssize(answer.tokens) < params.min_tokens) sample.banned = stops;
    answer.tokens.push_back(engine::toy::sample(row, sample, options));
    const TokenId token = answer.tokens.back().token;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      answer.finish = FinishReason::kStop;
      return answer;
    }
    ++seen[token].second;
    row = rows.next(token);
  }
  answer.finish = FinishReason::kLength;
  return answer;
}

}  // namespace tessera::sim
