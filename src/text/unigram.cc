#include <algorithm>

#include "text/byte_level.h"
#include "text/byte_trie.h"
#include "text/token_model.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

// The best way to cover the text up to one position.
struct BestEnd {
  double score = 0;
  int32_t id = 0;
  int32_t begin = -1;  // -1: not reached
};

struct UnigramScratch final : ModelScratch {
  std::vector<BestEnd> ends;
  std::vector<size_t> cuts;
};

class UnigramModel final : public TokenModel {
 public:
  UnigramModel(Vocabulary vocabulary, UnigramRules rules)
      : vocabulary_(std::move(vocabulary)), rules_(std::move(rules)) {
    std::vector<std::pair<std::string_view, int32_t>> entries;
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::string* piece = vocabulary_.piece(id);
      if (piece == nullptr || (!rules_.usable.empty() && !rules_.usable[static_cast<size_t>(id)])) continue;
      if (vocabulary_.find(*piece) == id) entries.emplace_back(*piece, id);
    }
    trie_ = ByteTrie::build(std::move(entries));
  }

  std::unique_ptr<ModelScratch> make_scratch() const override { return std::make_unique<UnigramScratch>(); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  Status encode(std::string_view piece, ModelScratch& scratch_base,
                std::vector<int32_t>& ids) const override {
    auto& scratch = static_cast<UnigramScratch&>(scratch_base);
    TESSERA_RETURN_IF_ERROR(find_best(piece, scratch.ends));
    scratch.cuts.clear();
    for (size_t end = piece.size(); end > 0; end = static_cast<size_t>(scratch.ends[end].begin))
      scratch.cuts.push_back(end);
    size_t begin = 0;
    for (size_t i = scratch.cuts.size(); i-- > 0;) {
      // Unknown characters in a row are one unknown piece.
      while (i > 0 && is_unknown(scratch.ends[scratch.cuts[i]]) &&
             is_unknown(scratch.ends[scratch.cuts[i - 1]]))
        --i;
      const size_t end = scratch.cuts[i];
      const int32_t id = scratch.ends[end].id;
      if (is_unknown(scratch.ends[end])) {
        add_unknown(piece.substr(begin, end - begin), ids);
      } else {
        ids.push_back(id);
      }
      begin = end;
    }
    return {};
  }

 private:
  bool is_unknown(const BestEnd& end) const { return rules_.unknown && end.id == *rules_.unknown; }

  void add_unknown(std::string_view text, std::vector<int32_t>& ids) const {
    if (rules_.byte_fallback) {
      const size_t first = ids.size();
      for (const char byte : text) {
        const auto id = vocabulary_.find(byte_piece(static_cast<unsigned char>(byte)));
        if (!id) {
          ids.resize(first);
          ids.push_back(*rules_.unknown);
          return;
        }
        ids.push_back(*id);
      }
      return;
    }
    ids.push_back(*rules_.unknown);
  }

  double sum(double a, double b) const {
    return rules_.single_precision ? double{static_cast<float>(a) + static_cast<float>(b)} : a + b;
  }

  // Viterbi over the positions of the text.
  Status find_best(std::string_view text, std::vector<BestEnd>& ends) const {
    if (text.size() > static_cast<size_t>(INT32_MAX))
      return invalid_argument("the text is longer than 2 GiB");
    ends.assign(text.size() + 1, {});
    for (size_t at = 0; at < text.size();) {
      const double here = ends[at].score;
      const size_t length = std::min(utf8_length(text[at]), text.size() - at);
      bool has_single = false;
      const auto offer = [&](size_t bytes, int32_t id, double score) {
        BestEnd& end = ends[at + bytes];
        const double candidate = sum(score, here);
        if (end.begin < 0 || candidate > end.score) end = {candidate, id, static_cast<int32_t>(at)};
      };
      trie_.for_each_prefix(text.substr(at), [&](size_t bytes, int32_t id) {
        offer(bytes, id, rules_.scores[static_cast<size_t>(id)]);
        has_single = has_single || bytes == length;
      });
      if (!has_single) {
        if (!rules_.unknown)
          return invalid_argument(
              "the text has characters that the vocabulary lacks, and it has no unknown token");
        offer(length, *rules_.unknown, rules_.unknown_score);
      }
      at += length;
    }
    return {};
  }

  Vocabulary vocabulary_;
  UnigramRules rules_;
  ByteTrie trie_;
};

}  // namespace

std::unique_ptr<const TokenModel> make_unigram_model(Vocabulary vocabulary, UnigramRules rules) {
  return std::make_unique<UnigramModel>(std::move(vocabulary), std::move(rules));
}

}  // namespace tessera::text
