#include "text/protobuf_reader.h"
#include "text/sentencepiece_vocabulary.h"
#include "text/tokenizer_config.h"

namespace tessera::text {
namespace {

// Field numbers of sentencepiece_model.proto.
namespace field {
constexpr uint32_t kPieces = 1, kTrainer = 2, kNormalizer = 3;                      // ModelProto
constexpr uint32_t kPiece = 1, kScore = 2, kType = 3;                               // SentencePiece
constexpr uint32_t kModelType = 3, kWhitespaceAsSuffix = 24, kByteFallback = 35;    // TrainerSpec
constexpr uint32_t kBosPiece = 46, kEosPiece = 47;                                  // TrainerSpec
constexpr uint32_t kCharsmap = 2, kDummyPrefix = 3, kRemoveExtra = 4, kEscape = 5;  // NormalizerSpec
}  // namespace field

struct Model {
  SentencePieceVocabulary vocabulary;
  std::string bos_piece = "<s>", eos_piece = "</s>";
};

Status read_piece(std::string_view bytes, Model& model) {
  SentencePieceVocabulary::Entry piece;
  for (ProtobufReader reader(bytes); !reader.at_end();) {
    TESSERA_ASSIGN_OR_RETURN(const auto part, reader.next());
    if (part.number == field::kPiece) piece.text = part.bytes;
    if (part.number == field::kScore) piece.score = part.as_float();
    if (part.number == field::kType) {
      if (part.value < 1 || part.value > 6)
        return unsupported("SentencePiece: a piece of type " + std::to_string(part.value));
      piece.type = static_cast<PieceType>(part.value);
    }
  }
  model.vocabulary.pieces.push_back(std::move(piece));
  return {};
}

Status read_trainer(std::string_view bytes, Model& model) {
  uint64_t type = 1;
  for (ProtobufReader reader(bytes); !reader.at_end();) {
    TESSERA_ASSIGN_OR_RETURN(const auto part, reader.next());
    if (part.number == field::kModelType) type = part.value;
    if (part.number == field::kWhitespaceAsSuffix)
      model.vocabulary.rules.whitespace_as_suffix = part.value != 0;
    if (part.number == field::kByteFallback) model.vocabulary.byte_fallback = part.value != 0;
    if (part.number == field::kBosPiece) model.bos_piece = part.bytes;
    if (part.number == field::kEosPiece) model.eos_piece = part.bytes;
  }
  if (type != 1 && type != 2)
    return unsupported("SentencePiece: model type " + std::to_string(type) + " (neither Unigram nor BPE)");
  model.vocabulary.unigram = type == 1;
  return {};
}

Status read_normalizer(std::string_view bytes, Model& model) {
  SentencePieceRules& rules = model.vocabulary.rules;
  for (ProtobufReader reader(bytes); !reader.at_end();) {
    TESSERA_ASSIGN_OR_RETURN(const auto part, reader.next());
    if (part.number == field::kCharsmap) {
      TESSERA_ASSIGN_OR_RETURN(
          rules.charsmap,
          Charsmap::parse({reinterpret_cast<const uint8_t*>(part.bytes.data()), part.bytes.size()}));
    }
    if (part.number == field::kDummyPrefix) rules.add_dummy_prefix = part.value != 0;
    if (part.number == field::kRemoveExtra) rules.remove_extra_whitespaces = part.value != 0;
    if (part.number == field::kEscape) rules.escape_whitespaces = part.value != 0;
  }
  return {};
}

Result<Model> read_model(std::string_view bytes) {
  Model model;
  model.vocabulary.unigram = true;
  for (ProtobufReader reader(bytes); !reader.at_end();) {
    TESSERA_ASSIGN_OR_RETURN(const auto part, reader.next());
    if (part.number == field::kPieces) TESSERA_RETURN_IF_ERROR(read_piece(part.bytes, model));
    if (part.number == field::kTrainer) TESSERA_RETURN_IF_ERROR(read_trainer(part.bytes, model));
    if (part.number == field::kNormalizer) TESSERA_RETURN_IF_ERROR(read_normalizer(part.bytes, model));
  }
  if (model.vocabulary.pieces.empty()) return corrupt("SentencePiece: the model has no pieces");
  return model;
}

}  // namespace

Result<TokenizerPtr> load_sentencepiece(std::span<const uint8_t> bytes,
                                        std::string_view tokenizer_config_json) {
  TESSERA_ASSIGN_OR_RETURN(Model model,
                           read_model({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
  TESSERA_ASSIGN_OR_RETURN(TokenizerConfig config, parse_tokenizer_config(tokenizer_config_json));
  model.vocabulary.rules.prefix_only_at_start = config.legacy == false;
  model.vocabulary.additions = std::move(config.added_tokens);
  TESSERA_ASSIGN_OR_RETURN(Pipeline pipeline, make_sentencepiece_pipeline(std::move(model.vocabulary)));
  const auto id_of = [&](const std::string& configured, const std::string& trained) {
    const AddedToken* token = pipeline.added.by_content(configured.empty() ? trained : configured);
    return token == nullptr ? std::optional<int32_t>() : std::optional<int32_t>(token->id);
  };
  pipeline.bos = id_of(config.bos_token, model.bos_piece);
  pipeline.eos = id_of(config.eos_token, model.eos_piece);
  if (pipeline.bos && config.add_bos_token.value_or(true)) pipeline.before.push_back(*pipeline.bos);
  if (pipeline.eos && config.add_eos_token.value_or(false)) pipeline.after.push_back(*pipeline.eos);
  return make_pipeline_tokenizer(std::move(pipeline));
}

}  // namespace tessera::text
