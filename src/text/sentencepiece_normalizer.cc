#include <optional>

#include "text/byte_trie.h"
#include "text/json_fields.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";  // U+2581

class SentencePieceNormalizer final : public Normalizer {
 public:
  explicit SentencePieceNormalizer(SentencePieceRules rules) : rules_(std::move(rules)) {
    std::vector<std::pair<std::string_view, int32_t>> entries;
    for (const std::string& piece : rules_.user_defined) entries.emplace_back(piece, 0);
    user_defined_ = ByteTrie::build(std::move(entries));
  }

  Status apply(std::string& text, bool at_start) const override {
    const std::string_view space = rules_.escape_whitespaces ? kEscapedSpace : std::string_view(" ");
    const bool add_space = rules_.add_dummy_prefix && (at_start || !rules_.prefix_only_at_start);
    std::string_view rest = text;
    if (rules_.remove_extra_whitespaces) skip_leading_spaces(rest);
    std::string out;
    if (rest.empty()) {
      text.clear();
      return {};
    }
    out.reserve(rest.size() + rest.size() / 2);
    if (add_space && !rules_.whitespace_as_suffix) out.append(space);
    bool after_space = rules_.remove_extra_whitespaces;  // spaces here would be repeated ones
    while (!rest.empty()) {
      Step step = next(rest);
      while (after_space && step.output.starts_with(' ')) step.output.remove_prefix(1);
      if (!step.output.empty()) {
        for (const char c : step.output) {
          if (c == ' ') {
            out.append(space);
          } else {
            out.push_back(c);
          }
        }
        after_space = rules_.remove_extra_whitespaces && step.output.ends_with(' ');
      }
      rest.remove_prefix(step.consumed);
      if (out.size() > kMaxNormalizedBytes)
        return resource_exhausted("the text grows too much when normalized");
    }
    while (rules_.remove_extra_whitespaces && out.ends_with(space)) out.resize(out.size() - space.size());
    if (add_space && rules_.whitespace_as_suffix) out.append(space);
    text = std::move(out);
    return {};
  }

 private:
  struct Step {
    size_t consumed;
    std::string_view output;
  };
  Step next(std::string_view text) const {
    const size_t kept = user_defined_.longest_prefix(text).first;
    if (kept > 0) return {kept, text.substr(0, kept)};
    if (const auto match = rules_.charsmap.longest_prefix(text)) return {match->length, match->replacement};
    const size_t length = std::min(utf8_length(text.front()), text.size());
    return {length, text.substr(0, length)};
  }
  void skip_leading_spaces(std::string_view& text) const {
    while (!text.empty()) {
      const Step step = next(text);
      if (step.output != " ") return;
      text.remove_prefix(step.consumed);
    }
  }

  SentencePieceRules rules_;
  ByteTrie user_defined_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_sentencepiece_normalizer(SentencePieceRules rules) {
  return std::make_unique<SentencePieceNormalizer>(std::move(rules));
}

}  // namespace tessera::text
