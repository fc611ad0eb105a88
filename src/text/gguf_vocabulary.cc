#include <algorithm>
#include <array>

#include "text/byte_level.h"
#include "text/sentencepiece_vocabulary.h"

namespace tessera::text {
namespace {

// How a byte-level vocabulary cuts text, by tokenizer.ggml.pre.
struct PreRules {
  std::vector<std::string> patterns;  // applied in order
  bool nfc = false, ignore_merges = false, add_bos = false;
};

constexpr char kGpt2[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr char kLlama3[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kTekken[] = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
                           R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
                           R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kGpt4o[] =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr char kDeepseekCjk[] = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
constexpr char kDeepseekWords[] = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
                                  "\r\n"
                                  R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
                                  "\r\n"
                                  R"(]*|\s*[)"
                                  "\r\n"
                                  R"(]+|\s+(?!\S)|\s+)";

Result<PreRules> pre_rules(std::string_view pre) {
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), pre) != names.end();
  };
  if (is({"", "default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo"})) return PreRules{{kGpt2}};
  if (is({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}))
    return PreRules{{R"(\p{N})", kGpt2}};
  if (is({"llama-bpe", "llama3", "llama-v3"})) return PreRules{{kLlama3}, false, true, true};
  if (is({"dbrx", "smaug-bpe"})) return PreRules{{kLlama3}};
  if (is({"qwen2", "deepseek-r1-qwen", "megrez"})) return PreRules{{kQwen2}, true};
  if (is({"tekken"})) return PreRules{{kTekken}, false, true, true};
  if (is({"gpt-4o", "llama4"})) return PreRules{{kGpt4o}};
  if (is({"deepseek-v3"})) return PreRules{{R"(\p{N}{1,3})", kDeepseekCjk, kDeepseekWords}};
  return unsupported("GGUF: the pre-tokenizer \"" + std::string(pre) + "\"");
}

PieceType type_of(const GgufVocabulary& source, size_t id) {
  if (id >= source.token_types.size()) return PieceType::kNormal;
  const int32_t type = source.token_types[id];
  return type < 1 || type > 6 ? PieceType::kNormal : static_cast<PieceType>(type);
}

Result<std::vector<BpeRules::Merge>> read_merges(const GgufVocabulary& source, const Vocabulary& vocabulary) {
  std::vector<BpeRules::Merge> merges;
  for (const std::string& text : source.merges) {
    const size_t space = text.find(' ', 1);
    if (space == std::string::npos)
      return corrupt("GGUF: the merge \"" + text + "\" is not a pair of pieces");
    const std::string left = text.substr(0, space), right = text.substr(space + 1);
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right),
               whole = vocabulary.find(left + right);
    if (!left_id || !right_id || !whole)
      return corrupt("GGUF: the merge \"" + text + "\" is not in the vocabulary");
    merges.push_back({*left_id, *right_id, *whole, static_cast<uint32_t>(merges.size())});
  }
  return merges;
}

Result<Pipeline> make_byte_level(const GgufVocabulary& source, const PreRules& pre) {
  Vocabulary vocabulary;
  std::vector<AddedToken> added;
  for (size_t i = 0; i < source.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    TESSERA_RETURN_IF_ERROR(vocabulary.add(source.tokens[i], id));
    const PieceType type = type_of(source, i);
    if (type != PieceType::kControl && type != PieceType::kUserDefined) continue;
    AddedToken token;
    token.id = id;
    token.content = source.tokens[i];
    token.special = type == PieceType::kControl;
    added.push_back(std::move(token));
  }
  Pipeline pipeline;
  BpeRules rules;
  TESSERA_ASSIGN_OR_RETURN(rules.merges, read_merges(source, vocabulary));
  rules.ignore_merges = pre.ignore_merges;
  rules.unknown = source.unk;
  pipeline.model = make_bpe_model(std::move(vocabulary), std::move(rules));
  if (pre.nfc) pipeline.normalizer = make_nfc_normalizer();
  TESSERA_ASSIGN_OR_RETURN(pipeline.pre_tokenizers, make_byte_level_pre_tokenizers(pre.patterns));
  pipeline.decoder = Decoder::byte_level();
  TESSERA_ASSIGN_OR_RETURN(pipeline.added, AddedTokens::build(std::move(added), nullptr));
  return pipeline;
}

Result<Pipeline> make_by_scores(const GgufVocabulary& source) {
  if (source.scores.size() != source.tokens.size())
    return corrupt("GGUF: " + std::to_string(source.scores.size()) + " scores for " +
                   std::to_string(source.tokens.size()) + " tokens");
  SentencePieceVocabulary vocabulary;
  size_t bytes = 0;
  for (size_t i = 0; i < source.tokens.size(); ++i) {
    vocabulary.pieces.push_back({source.tokens[i], source.scores[i], type_of(source, i)});
    bytes += byte_of_piece(source.tokens[i]).has_value() ? 1 : 0;
  }
  vocabulary.byte_fallback = bytes >= 256;
  vocabulary.rules.add_dummy_prefix = source.add_space_prefix.value_or(true);
  vocabulary.rules.remove_extra_whitespaces = false;
  return make_sentencepiece_pipeline(std::move(vocabulary));
}

}  // namespace

Result<TokenizerPtr> load_gguf_tokenizer(const GgufVocabulary& source) {
  if (source.tokens.empty()) return corrupt("GGUF: the vocabulary is empty");
  for (const auto& id : {source.bos, source.eos, source.unk, source.pad})
    if (id && (*id < 0 || static_cast<size_t>(*id) >= source.tokens.size()))
      return corrupt("GGUF: special token id " + std::to_string(*id) + " is outside the vocabulary");
  Pipeline pipeline;
  bool add_bos = true;
  if (source.model == "gpt2") {
    TESSERA_ASSIGN_OR_RETURN(const PreRules pre, pre_rules(source.pre));
    TESSERA_ASSIGN_OR_RETURN(pipeline, make_byte_level(source, pre));
    add_bos = pre.add_bos;
  } else if (source.model == "llama") {
    TESSERA_ASSIGN_OR_RETURN(pipeline, make_by_scores(source));
  } else {
    return unsupported("GGUF: a tokenizer of model \"" + source.model + "\"");
  }
  pipeline.bos = source.bos;
  pipeline.eos = source.eos;
  if (pipeline.bos && source.add_bos.value_or(add_bos)) pipeline.before.push_back(*pipeline.bos);
  if (pipeline.eos && source.add_eos.value_or(false)) pipeline.after.push_back(*pipeline.eos);
  return make_pipeline_tokenizer(std::move(pipeline));
}

}  // namespace tessera::text
