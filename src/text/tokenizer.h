// Text to token ids and back, as the model's own files say.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tessera::text {

struct EncodeOptions {
  // What the model puts around a text (BOS, EOS, [CLS], …). Special tokens written in the text are always
  // recognised.
  bool add_special_tokens = true;
};

// One decoding in progress. Not shareable; keeps what it needs of its tokenizer, which must outlive it.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  // The text that became certain with this token: whole characters only. InvalidArgument on an unknown id,
  // which then counts for nothing.
  virtual Result<std::string> push(int32_t id) = 0;
  virtual Result<std::string> finish() = 0;
};

// Immutable after load, shareable between threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // InvalidArgument when the text is not UTF-8. Time is linear in the text's length times its logarithm at
  // most.
  virtual Result<std::vector<int32_t>> encode(std::string_view text, EncodeOptions options = {}) const = 0;
  // InvalidArgument on an id outside the vocabulary. Bytes that are no UTF-8 come out as U+FFFD.
  virtual Result<std::string> decode(std::span<const int32_t> ids,
                                     bool skip_special_tokens = false) const = 0;
  // Decodes token by token; what it gives, joined, is what decode gives.
  virtual std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const = 0;

  virtual int32_t vocab_size() const = 0;                // highest id + 1
  virtual std::string token_text(int32_t id) const = 0;  // the piece as stored; empty for an unknown id
  // The raw bytes that the token contributes in the middle of a text; empty for an unknown id.
  virtual std::string token_bytes(int32_t id) const = 0;
  virtual std::optional<int32_t> token_id(std::string_view piece) const = 0;
  virtual bool is_special(int32_t id) const = 0;
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
};

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

// A folder with tokenizer.json, else tokenizer.model; a tokenizer_config.json beside it names BOS, EOS and
// later additions. A part of the file that is not known is Unsupported, by name: nothing is guessed.
Result<TokenizerPtr> load_tokenizer(const std::filesystem::path& folder);
// The second text may be empty.
Result<TokenizerPtr> load_tokenizer_json(std::string_view tokenizer_json,
                                         std::string_view tokenizer_config_json);
// A SentencePiece model (BPE or Unigram). Control pieces written in the text are recognised, as for every
// format; tokenizer_config.json's add_bos_token (default: the model has a BOS), add_eos_token (default: no)
// and legacy (default: a leading space also behind special tokens) count.
Result<TokenizerPtr> load_sentencepiece(std::span<const uint8_t> model,
                                        std::string_view tokenizer_config_json);

// The vocabulary inside a GGUF file, as plain data.
struct GgufVocabulary {
  std::string model;  // tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece by scores)
  std::string pre;    // tokenizer.ggml.pre: which regular expression cuts the text
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> token_types;
  std::vector<std::string> merges;
  std::optional<int32_t> bos, eos, unk, pad;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};
Result<TokenizerPtr> load_gguf_tokenizer(const GgufVocabulary& vocabulary);

}  // namespace tessera::text
