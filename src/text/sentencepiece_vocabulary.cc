#include "text/sentencepiece_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "text/byte_level.h"

namespace tessera::text {
namespace {

constexpr size_t kMaxPieceBytes = 1024;  // bounds the work of finding a piece's halves

bool is_normal(const SentencePieceVocabulary::Entry& piece) {
  return piece.type == PieceType::kNormal;
}

// Two normal pieces merge when together they are a normal piece; the best score goes first. So the merges are
// all halvings of all pieces.
std::vector<BpeRules::Merge> merges_of(const SentencePieceVocabulary& source, const Vocabulary& vocabulary) {
  std::vector<int32_t> order;
  std::vector<std::pair<std::string_view, int32_t>> entries;
  for (size_t id = 0; id < source.pieces.size(); ++id) {
    if (!is_normal(source.pieces[id]) || vocabulary.find(source.pieces[id].text) != static_cast<int32_t>(id))
      continue;
    order.push_back(static_cast<int32_t>(id));
    entries.emplace_back(source.pieces[id].text, static_cast<int32_t>(id));
  }
  const ByteTrie prefixes = ByteTrie::build(std::move(entries));
  const auto score = [&](int32_t id) { return source.pieces[static_cast<size_t>(id)].score; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
  std::vector<BpeRules::Merge> merges;
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && score(order[i]) != score(order[i - 1])) rank = static_cast<uint32_t>(i);
    const std::string_view whole = source.pieces[static_cast<size_t>(order[i])].text;
    prefixes.for_each_prefix(whole, [&](size_t length, int32_t left) {
      if (length == whole.size()) return;
      const auto right = vocabulary.find(whole.substr(length));
      if (right && is_normal(source.pieces[static_cast<size_t>(*right)]))
        merges.push_back({left, *right, order[i], rank});
    });
  }
  return merges;
}

std::unique_ptr<const TokenModel> make_unigram(const SentencePieceVocabulary& source, Vocabulary vocabulary,
                                               std::optional<int32_t> unknown) {
  UnigramRules rules;
  float lowest = 0;
  bool first = true;
  for (const auto& piece : source.pieces) {
    rules.scores.push_back(piece.score);
    rules.usable.push_back(is_normal(piece));
    if (is_normal(piece)) lowest = first ? piece.score : std::min(lowest, piece.score);
    first = first && !is_normal(piece);
  }
  constexpr float kUnknownPenalty = 10;
  rules.unknown = unknown;
  rules.unknown_score = lowest - kUnknownPenalty;
  rules.byte_fallback = source.byte_fallback;
  rules.single_precision = true;
  return make_unigram_model(std::move(vocabulary), std::move(rules));
}

}  // namespace

Result<Pipeline> make_sentencepiece_pipeline(SentencePieceVocabulary source) {
  Vocabulary vocabulary;
  std::optional<int32_t> unknown;
  std::vector<AddedToken> added;
  for (size_t i = 0; i < source.pieces.size(); ++i) {
    const auto& piece = source.pieces[i];
    if (piece.text.size() > kMaxPieceBytes) return unsupported("tokenizer: a piece of more than 1024 bytes");
    if (!std::isfinite(piece.score)) return corrupt("tokenizer: a piece's score is not a finite number");
    if (i > static_cast<size_t>(Vocabulary::kMaxId)) return unsupported("tokenizer: too many pieces");
    const auto id = static_cast<int32_t>(i);
    TESSERA_RETURN_IF_ERROR(vocabulary.add(piece.text, id));
    AddedToken token;
    token.id = id;
    token.content = piece.text;
    if (piece.type == PieceType::kUnknown && !unknown) unknown = id;
    if (piece.type == PieceType::kControl || piece.type == PieceType::kUnknown) {
      token.special = true;
      added.push_back(std::move(token));
    } else if (piece.type == PieceType::kUserDefined) {
      token.match_normalized = true;
      source.rules.user_defined.push_back(piece.text);
      added.push_back(std::move(token));
    }
  }
  Pipeline pipeline;
  for (AddedToken& token : source.additions) {
    token.id = vocabulary.find(token.content).value_or(token.id);
    added.push_back(std::move(token));
  }
  if (source.unigram) {
    pipeline.model = make_unigram(source, std::move(vocabulary), unknown);
  } else {
    BpeRules rules;
    rules.merges = merges_of(source, vocabulary);
    rules.unknown = unknown;
    rules.fuse_unknown = true;
    rules.byte_fallback = source.byte_fallback;
    pipeline.model = make_bpe_model(std::move(vocabulary), std::move(rules));
  }
  TESSERA_ASSIGN_OR_RETURN(pipeline.added, AddedTokens::build(std::move(added), nullptr, true));
  pipeline.decoder = Decoder::sentencepiece(source.rules.add_dummy_prefix);
  pipeline.normalizer = make_sentencepiece_normalizer(std::move(source.rules));
  return pipeline;
}

}  // namespace tessera::text
