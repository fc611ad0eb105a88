#include <algorithm>

#include "text/token_model.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

class WordPieceModel final : public TokenModel {
 public:
  WordPieceModel(Vocabulary vocabulary, WordPieceRules rules)
      : vocabulary_(std::move(vocabulary)), rules_(std::move(rules)) {
    for (int32_t id = 0; id < vocabulary_.size(); ++id)
      if (const std::string* piece = vocabulary_.piece(id)) longest_ = std::max(longest_, piece->size());
  }

  std::unique_ptr<ModelScratch> make_scratch() const override { return std::make_unique<ModelScratch>(); }
  const Vocabulary& vocabulary() const override { return vocabulary_; }

  // The longest known prefix again and again; a word with an unknown rest is unknown as a whole.
  Status encode(std::string_view piece, ModelScratch&, std::vector<int32_t>& ids) const override {
    if (count_characters(piece) > static_cast<size_t>(rules_.max_characters)) {
      ids.push_back(rules_.unknown);
      return {};
    }
    const size_t first = ids.size();
    for (size_t begin = 0; begin < piece.size();) {
      const std::string prefix = begin == 0 ? std::string() : rules_.continuing_prefix;
      size_t end = std::min(piece.size(), begin + longest_);
      std::optional<int32_t> id;
      for (; end > begin; --end) {
        if (end < piece.size() && (static_cast<uint8_t>(piece[end]) & 0xC0) == 0x80) continue;
        id = vocabulary_.find(prefix + std::string(piece.substr(begin, end - begin)));
        if (id) break;
      }
      if (!id) {
        ids.resize(first);
        ids.push_back(rules_.unknown);
        return {};
      }
      ids.push_back(*id);
      begin = end;
    }
    return {};
  }

 private:
  static size_t count_characters(std::string_view text) {
    return static_cast<size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
  }

  Vocabulary vocabulary_;
  WordPieceRules rules_;
  size_t longest_ = 0;  // bytes of the longest piece
};

}  // namespace

std::unique_ptr<const TokenModel> make_wordpiece_model(Vocabulary vocabulary, WordPieceRules rules) {
  return std::make_unique<WordPieceModel>(std::move(vocabulary), std::move(rules));
}

}  // namespace tessera::text
