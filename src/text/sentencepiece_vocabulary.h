// What SentencePiece models and GGUF's "llama" vocabularies have in common.
#pragma once

#include <string>
#include <vector>

#include "text/pipeline.h"

namespace tessera::text {

enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct SentencePieceVocabulary {
  struct Entry {
    std::string text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  std::vector<Entry> pieces;  // by id
  bool unigram = false;       // else BPE by scores
  bool byte_fallback = false;
  SentencePieceRules rules;           // user_defined is filled from the pieces
  std::vector<AddedToken> additions;  // beyond the pieces
};

// Fills all of a pipeline but the template and the special ids. Corrupt or Unsupported, by name, where the
// pieces cannot be used. Unused pieces are never produced.
Result<Pipeline> make_sentencepiece_pipeline(SentencePieceVocabulary vocabulary);

}  // namespace tessera::text
