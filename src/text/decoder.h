// From token pieces back to text, one token at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/json_fields.h"

namespace tessera::text {

// What becomes of a sequence of tokens, in order. A step sees single tokens until a step joins them (kFuse,
// kByteLevel); what follows sees one growing text.
struct DecoderStep {
  enum class Kind {
    kByteLevel,     // characters of the byte-level alphabet to bytes, all tokens joined
    kByteFallback,  // runs of <0xNN> to the text they spell, or U+FFFD for each
    kFuse,
    kMetaspace,   // `text` to spaces; drop_first: not in the first token, where it vanishes
    kReplace,     // `pattern` to `text`
    kStrip,       // up to `left` and `right` times `text` from the ends
    kWordPiece,   // tokens without the prefix `text` get a space before them; cleanup: English contractions
    kJoinSpaces,  // a space between tokens
  };
  Kind kind = Kind::kFuse;
  std::string text;
  TextPattern pattern = TextPattern::literal("");
  int32_t left = 0, right = 0;
  bool drop_first = false, cleanup = false;
};

// The running state of one decoding. Not shareable.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  // The text that is certain once this token is known; never part of a character.
  virtual Status push(std::string_view piece, std::string& out) = 0;
  virtual Status finish(std::string& out) = 0;
};

// Immutable, shareable between threads. A stream must not outlive its decoder.
class Decoder {
 public:
  // A "decoder" object of tokenizer.json (JSON null: tokens joined by spaces). Unsupported, by name, for an
  // unknown type.
  static Result<Decoder> parse(const Json& json);
  static Decoder byte_level();
  // U+2581 to spaces, byte fallback, and without the first space when `strip_first_space`.
  static Decoder sentencepiece(bool strip_first_space);

  std::unique_ptr<DecodeStream> open() const;
  // The bytes that a token stands for in the middle of a text.
  std::string token_bytes(std::string_view piece) const;

 private:
  std::vector<DecoderStep> steps_;
};

}  // namespace tessera::text
