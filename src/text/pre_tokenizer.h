// Cuts a normalized text into the pieces that the model encodes one by one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace tessera::text {

struct Piece {
  std::string_view text;  // never empty
  bool at_start;          // begins where the whole text begins
};
// Takes one piece; the view is valid during the call only.
using PieceSink = std::function<Status(Piece)>;

// Immutable, shareable between threads. Pieces stream through: no list of them is ever built.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual Status split(Piece piece, const PieceSink& sink) const = 0;
};

// Each member cuts the pieces of the one before it.
using PreTokenizers = std::vector<std::unique_ptr<const PreTokenizer>>;

// A "pre_tokenizer" object of tokenizer.json, sequences flattened; empty for JSON null. Unsupported, by name,
// for an unknown type.
Result<PreTokenizers> parse_pre_tokenizer(const Json& json);

// Split by a regular expression with isolated matches, then the byte-level alphabet: what every byte-level
// BPE vocabulary needs. Patterns apply in order.
Result<PreTokenizers> make_byte_level_pre_tokenizers(const std::vector<std::string>& patterns);

// The chain `stages`[0] → … → sink; the returned function refers to both arguments.
PieceSink chain_pre_tokenizers(const PreTokenizers& stages, const PieceSink& sink);

}  // namespace tessera::text
