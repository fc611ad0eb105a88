// What is done to a text before it is cut into pieces.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/charsmap.h"

namespace tessera::text {

// Immutable, shareable between threads.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Changes `text` (valid UTF-8) in place. `at_start`: it is the beginning of the whole text, not what
  // follows a special token.
  virtual Status apply(std::string& text, bool at_start) const = 0;
};

// A "normalizer" object of tokenizer.json; null for JSON null. Unsupported, by name, for an unknown type.
Result<std::unique_ptr<const Normalizer>> parse_normalizer(const Json& json);

std::unique_ptr<const Normalizer> make_nfc_normalizer();

struct SentencePieceRules {
  Charsmap charsmap;  // empty: no character changes
  bool add_dummy_prefix = true;
  bool prefix_only_at_start = false;  // else also behind each special token
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_as_suffix = false;
  std::vector<std::string> user_defined;  // pieces that no rule may change
};
std::unique_ptr<const Normalizer> make_sentencepiece_normalizer(SentencePieceRules rules);

}  // namespace tessera::text
