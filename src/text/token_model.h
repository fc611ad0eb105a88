// From one piece of text to token ids: the trained part of a tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tessera::text {

// Pieces by id and ids by piece. Immutable once filled; movable, not copyable (the index points into the
// pieces).
class Vocabulary {
 public:
  static constexpr int32_t kMaxId = (1 << 22) - 1;

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  // Gives `piece` the id; Corrupt when the id is out of range or taken. Of equal pieces the first keeps the
  // index.
  Status add(std::string piece, int32_t id);
  std::optional<int32_t> find(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? std::nullopt : std::optional<int32_t>(found->second);
  }
  // Null: no piece has this id.
  const std::string* piece(int32_t id) const {
    return id >= 0 && id < size() ? pieces_[static_cast<size_t>(id)].get() : nullptr;
  }
  int32_t size() const { return static_cast<int32_t>(pieces_.size()); }  // highest id + 1

 private:
  std::vector<std::unique_ptr<const std::string>> pieces_;
  std::unordered_map<std::string_view, int32_t> ids_;
};

// Working memory of one encode call, reused from piece to piece.
class ModelScratch {
 public:
  virtual ~ModelScratch() = default;
};

// Immutable, shareable between threads.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual std::unique_ptr<ModelScratch> make_scratch() const = 0;
  // Appends the ids of `piece`; `scratch` comes from make_scratch of this model.
  virtual Status encode(std::string_view piece, ModelScratch& scratch, std::vector<int32_t>& ids) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
};

struct BpeRules {
  struct Merge {
    int32_t left, right, whole;
    uint32_t rank;  // lower first; equal ranks from left to right
  };
  std::vector<Merge> merges;
  std::optional<int32_t> unknown;
  std::string continuing_prefix, word_suffix;
  bool fuse_unknown = false, byte_fallback = false;
  bool ignore_merges = false;  // a piece that is in the vocabulary is one token, whatever the merges say
};
std::unique_ptr<const TokenModel> make_bpe_model(Vocabulary vocabulary, BpeRules rules);

struct UnigramRules {
  std::vector<double> scores;  // by id
  std::vector<bool> usable;    // by id; empty: all pieces may be produced
  std::optional<int32_t> unknown;
  double unknown_score = 0;
  bool byte_fallback = false;
  bool single_precision = false;  // sums as float32, as SentencePiece itself does
};
std::unique_ptr<const TokenModel> make_unigram_model(Vocabulary vocabulary, UnigramRules rules);

struct WordPieceRules {
  int32_t unknown = 0;
  std::string continuing_prefix = "##";
  int32_t max_characters = 100;  // longer words are unknown
};
std::unique_ptr<const TokenModel> make_wordpiece_model(Vocabulary vocabulary, WordPieceRules rules);

}  // namespace tessera::text
