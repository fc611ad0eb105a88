#include "text/pipeline.h"

#include <algorithm>

#include "base/utf8.h"

namespace tessera::text {
namespace {

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(Pipeline pipeline) : pipeline_(std::move(pipeline)) {}

  Result<std::vector<int32_t>> encode(std::string_view text, EncodeOptions options) const override {
    if (!is_valid_utf8(text)) return invalid_argument("the text to tokenize is not valid UTF-8");
    std::vector<int32_t> ids;
    if (options.add_special_tokens) ids = pipeline_.before;
    TESSERA_RETURN_IF_ERROR(encode_text(text, ids));
    if (options.add_special_tokens) ids.insert(ids.end(), pipeline_.after.begin(), pipeline_.after.end());
    return ids;
  }

  Result<std::string> decode(std::span<const int32_t> ids, bool skip_special_tokens) const override {
    const auto stream = pipeline_.decoder.open();
    std::string text;
    for (const int32_t id : ids) {
      TESSERA_ASSIGN_OR_RETURN(const std::string* piece, known_piece(id));
      if (skip_special_tokens && pipeline_.added.is_special(*piece)) continue;
      TESSERA_RETURN_IF_ERROR(stream->push(*piece, text));
    }
    TESSERA_RETURN_IF_ERROR(stream->finish(text));
    return text;
  }

  std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const override;

  int32_t vocab_size() const override {
    return std::max(pipeline_.model->vocabulary().size(), pipeline_.added.end_id());
  }
  std::string token_text(int32_t id) const override {
    const std::string* piece = find_piece(id);
    return piece == nullptr ? std::string() : *piece;
  }
  std::string token_bytes(int32_t id) const override {
    const std::string* piece = find_piece(id);
    return piece == nullptr ? std::string() : pipeline_.decoder.token_bytes(*piece);
  }
  std::optional<int32_t> token_id(std::string_view piece) const override {
    if (const AddedToken* token = pipeline_.added.by_content(piece)) return token->id;
    return pipeline_.model->vocabulary().find(piece);
  }
  bool is_special(int32_t id) const override {
    const std::string* piece = find_piece(id);
    return piece != nullptr && pipeline_.added.is_special(*piece);
  }
  std::optional<int32_t> bos_id() const override { return pipeline_.bos; }
  std::optional<int32_t> eos_id() const override { return pipeline_.eos; }

  const Decoder& decoder() const { return pipeline_.decoder; }
  // Null: the id is outside the vocabulary.
  const std::string* find_piece(int32_t id) const {
    if (const AddedToken* token = pipeline_.added.by_id(id)) return &token->content;
    return pipeline_.model->vocabulary().piece(id);
  }
  Result<const std::string*> known_piece(int32_t id) const {
    const std::string* piece = find_piece(id);
    if (piece == nullptr)
      return invalid_argument("token id " + std::to_string(id) + " is not in the vocabulary");
    return piece;
  }

 private:
  Status encode_text(std::string_view text, std::vector<int32_t>& ids) const {
    const auto scratch = pipeline_.model->make_scratch();
    const PieceSink model = [&](Piece piece) { return pipeline_.model->encode(piece.text, *scratch, ids); };
    const PieceSink cut = chain_pre_tokenizers(pipeline_.pre_tokenizers, model);
    return pipeline_.added.split_raw(text, [&](AddedTokens::Part part) -> Status {
      if (part.token != nullptr) {
        ids.push_back(part.token->id);
        return {};
      }
      return encode_part(part.text, part.text.data() == text.data(), cut, ids);
    });
  }

  // A stretch without raw added tokens.
  Status encode_part(std::string_view part, bool at_start, const PieceSink& cut,
                     std::vector<int32_t>& ids) const {
    std::string normalized;
    if (pipeline_.normalizer != nullptr) {
      normalized = part;
      TESSERA_RETURN_IF_ERROR(pipeline_.normalizer->apply(normalized, at_start));
      part = normalized;
    }
    if (part.empty()) return {};
    return pipeline_.added.split_normalized(part, [&](AddedTokens::Part piece) -> Status {
      if (piece.token != nullptr) {
        ids.push_back(piece.token->id);
        return {};
      }
      return cut({piece.text, at_start && piece.text.data() == part.data()});
    });
  }

  Pipeline pipeline_;
};

class PipelineStream final : public TokenStream {
 public:
  PipelineStream(const PipelineTokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_(skip_special_tokens), stream_(tokenizer.decoder().open()) {}

  Result<std::string> push(int32_t id) override {
    TESSERA_ASSIGN_OR_RETURN(const std::string* piece, tokenizer_.known_piece(id));
    std::string text;
    if (skip_ && tokenizer_.is_special(id)) return text;
    TESSERA_RETURN_IF_ERROR(stream_->push(*piece, text));
    return text;
  }
  Result<std::string> finish() override {
    std::string text;
    TESSERA_RETURN_IF_ERROR(stream_->finish(text));
    return text;
  }

 private:
  const PipelineTokenizer& tokenizer_;
  bool skip_;
  std::unique_ptr<DecodeStream> stream_;
};

std::unique_ptr<TokenStream> PipelineTokenizer::open_stream(bool skip_special_tokens) const {
  return std::make_unique<PipelineStream>(*this, skip_special_tokens);
}

}  // namespace

TokenizerPtr make_pipeline_tokenizer(Pipeline pipeline) {
  return std::make_shared<const PipelineTokenizer>(std::move(pipeline));
}

}  // namespace tessera::text
