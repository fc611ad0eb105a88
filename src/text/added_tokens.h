// Tokens that are found in the text before the model sees it: special tokens and later additions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/byte_trie.h"
#include "text/normalizer.h"

namespace tessera::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;       // only where no word character touches it
  bool lstrip = false;            // takes the spaces before it
  bool rstrip = false;            // takes the spaces behind it
  bool match_normalized = false;  // looked for in the normalized text instead of the raw one
  bool special = false;           // left out of decoded text on request
};

// Immutable.
class AddedTokens {
 public:
  // Of equal ids or contents the first counts. `normalizer` (may be null) gives the normalized forms of
  // tokens that are looked for in normalized text, unless `literal_normalized`: their content already is one.
  static Result<AddedTokens> build(std::vector<AddedToken> tokens, const Normalizer* normalizer,
                                   bool literal_normalized = false);

  struct Part {
    std::string_view text;
    const AddedToken* token;  // null: text for the model, not empty
  };
  using PartSink = std::function<Status(Part)>;
  // Cuts a text at the tokens that are looked for before (or after) normalization.
  Status split_raw(std::string_view text, const PartSink& sink) const { return split(raw_, text, sink); }
  Status split_normalized(std::string_view text, const PartSink& sink) const {
    return split(normalized_, text, sink);
  }
  bool any_normalized() const { return !normalized_.empty(); }

  const AddedToken* by_id(int32_t id) const;
  const AddedToken* by_content(std::string_view content) const;
  bool is_special(std::string_view content) const;
  int32_t end_id() const { return end_id_; }  // highest id + 1

 private:
  Status split(const ByteTrie& trie, std::string_view text, const PartSink& sink) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  ByteTrie raw_, normalized_;  // values: indices of tokens_
  int32_t end_id_ = 0;
};

}  // namespace tessera::text
