#include <nlohmann/json.hpp>

#include "text/json_fields.h"
#include "text/pipeline.h"
#include "text/tokenizer_config.h"

namespace tessera::text {
namespace {

using ModelPtr = std::unique_ptr<const TokenModel>;

Result<int32_t> read_id(const Json& json) {
  if (!json.is_number_unsigned() || json.get<uint64_t>() > static_cast<uint64_t>(Vocabulary::kMaxId))
    return corrupt("tokenizer: a token id is no whole number from 0 to " +
                   std::to_string(Vocabulary::kMaxId));
  return static_cast<int32_t>(json.get<uint64_t>());
}

// {"piece": id, …}
Result<Vocabulary> read_vocabulary(const Json& model) {
  const Json* pieces = find_member(model, "vocab");
  if (pieces == nullptr || !pieces->is_object()) return corrupt("tokenizer: \"vocab\" is no object");
  Vocabulary vocabulary;
  for (const auto& [piece, id_json] : pieces->items()) {
    TESSERA_ASSIGN_OR_RETURN(const int32_t id, read_id(id_json));
    TESSERA_RETURN_IF_ERROR(vocabulary.add(piece, id));
  }
  return vocabulary;
}

Result<std::optional<int32_t>> read_unknown(const Json& model, const Vocabulary& vocabulary) {
  if (find_member(model, "unk_token") == nullptr) return std::optional<int32_t>();
  TESSERA_ASSIGN_OR_RETURN(const std::string piece, read_string(model, "unk_token"));
  return vocabulary.find(piece);
}

// "left right" or ["left", "right"].
Result<std::pair<std::string, std::string>> read_merge(const Json& json) {
  if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string())
    return std::pair(json[0].get<std::string>(), json[1].get<std::string>());
  if (json.is_string()) {
    const std::string text = json.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos)
      return std::pair(text.substr(0, space), text.substr(space + 1));
  }
  return corrupt("tokenizer: a merge is not a pair of pieces");
}

Status read_merges(const Json& model, const Vocabulary& vocabulary, BpeRules& rules) {
  const Json* merges = find_member(model, "merges");
  if (merges == nullptr || !merges->is_array()) return corrupt("tokenizer: \"merges\" is not a list");
  for (const Json& entry : *merges) {
    TESSERA_ASSIGN_OR_RETURN(const auto pair, read_merge(entry));
    const auto& [left, right] = pair;
    const size_t prefix = right.starts_with(rules.continuing_prefix) ? rules.continuing_prefix.size() : 0;
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right),
               whole = vocabulary.find(left + right.substr(prefix));
    if (!left_id || !right_id || !whole)
      return corrupt("tokenizer: the merge \"" + left + "\" + \"" + right + "\" is not in the vocabulary");
    rules.merges.push_back({*left_id, *right_id, *whole, static_cast<uint32_t>(rules.merges.size())});
  }
  return {};
}

Result<ModelPtr> parse_bpe(const Json& model) {
  TESSERA_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocabulary(model));
  if (const Json* dropout = find_member(model, "dropout");
      dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0.0))
    return unsupported("tokenizer: BPE with dropout");
  BpeRules rules;
  TESSERA_ASSIGN_OR_RETURN(rules.continuing_prefix, read_string(model, "continuing_subword_prefix", ""));
  TESSERA_ASSIGN_OR_RETURN(rules.word_suffix, read_string(model, "end_of_word_suffix", ""));
  TESSERA_ASSIGN_OR_RETURN(rules.fuse_unknown, read_bool(model, "fuse_unk", false));
  TESSERA_ASSIGN_OR_RETURN(rules.byte_fallback, read_bool(model, "byte_fallback", false));
  TESSERA_ASSIGN_OR_RETURN(rules.ignore_merges, read_bool(model, "ignore_merges", false));
  TESSERA_ASSIGN_OR_RETURN(rules.unknown, read_unknown(model, vocabulary));
  TESSERA_RETURN_IF_ERROR(read_merges(model, vocabulary, rules));
  return make_bpe_model(std::move(vocabulary), std::move(rules));
}

Result<ModelPtr> parse_unigram(const Json& model) {
  const Json* pieces = find_member(model, "vocab");
  if (pieces == nullptr || !pieces->is_array()) return corrupt("tokenizer: \"vocab\" is not a list");
  Vocabulary vocabulary;
  UnigramRules rules;
  double lowest = 0;
  for (const Json& entry : *pieces) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
      return corrupt("tokenizer: an entry of a Unigram vocabulary is not [piece, score]");
    TESSERA_RETURN_IF_ERROR(
        vocabulary.add(entry[0].get<std::string>(), static_cast<int32_t>(rules.scores.size())));
    rules.scores.push_back(entry[1].get<double>());
    lowest = rules.scores.size() == 1 ? rules.scores.back() : std::min(lowest, rules.scores.back());
  }
  constexpr double kUnknownPenalty = 10;
  rules.unknown_score = lowest - kUnknownPenalty;
  if (find_member(model, "unk_id") != nullptr) {
    TESSERA_ASSIGN_OR_RETURN(const int32_t unknown, read_int(model, "unk_id", 0));
    if (unknown >= vocabulary.size()) return corrupt("tokenizer: unk_id is outside the vocabulary");
    rules.unknown = unknown;
  }
  TESSERA_ASSIGN_OR_RETURN(rules.byte_fallback, read_bool(model, "byte_fallback", false));
  return make_unigram_model(std::move(vocabulary), std::move(rules));
}

Result<ModelPtr> parse_wordpiece(const Json& model) {
  TESSERA_ASSIGN_OR_RETURN(Vocabulary vocabulary, read_vocabulary(model));
  WordPieceRules rules;
  TESSERA_ASSIGN_OR_RETURN(const std::string unknown, read_string(model, "unk_token", "[UNK]"));
  const auto id = vocabulary.find(unknown);
  if (!id) return corrupt("tokenizer: the unknown token \"" + unknown + "\" is not in the vocabulary");
  rules.unknown = *id;
  TESSERA_ASSIGN_OR_RETURN(rules.continuing_prefix, read_string(model, "continuing_subword_prefix", "##"));
  TESSERA_ASSIGN_OR_RETURN(rules.max_characters, read_int(model, "max_input_chars_per_word", 100));
  return make_wordpiece_model(std::move(vocabulary), std::move(rules));
}

Result<ModelPtr> parse_model(const Json& root) {
  const Json* model = find_member(root, "model");
  if (model == nullptr || !model->is_object()) return corrupt("tokenizer: \"model\" is no object");
  const bool has_merges = find_member(*model, "merges") != nullptr;  // old files do not name the type
  TESSERA_ASSIGN_OR_RETURN(const std::string type, read_string(*model, "type", has_merges ? "BPE" : ""));
  if (type == "BPE") return parse_bpe(*model);
  if (type == "Unigram") return parse_unigram(*model);
  if (type == "WordPiece") return parse_wordpiece(*model);
  return unsupported("tokenizer: a model of type \"" + type + "\"");
}

Result<AddedTokens> read_added_tokens(const Json& root, const TokenizerConfig& config,
                                      const Pipeline& pipeline) {
  std::vector<AddedToken> tokens;
  if (const Json* list = find_member(root, "added_tokens")) {
    if (!list->is_array()) return corrupt("tokenizer: \"added_tokens\" is not a list");
    for (const Json& entry : *list) {
      TESSERA_ASSIGN_OR_RETURN(AddedToken token, parse_added_token(entry));
      const Json* id = find_member(entry, "id");
      if (id == nullptr) return corrupt("tokenizer: an added token has no id");
      TESSERA_ASSIGN_OR_RETURN(token.id, read_id(*id));
      tokens.push_back(std::move(token));
    }
  }
  tokens.insert(tokens.end(), config.added_tokens.begin(), config.added_tokens.end());
  for (AddedToken& token : tokens)
    token.id = pipeline.model->vocabulary().find(token.content).value_or(token.id);
  return AddedTokens::build(std::move(tokens), pipeline.normalizer.get());
}

struct Template {
  std::vector<int32_t> before, after;
};

// "single": the text once, special tokens around it.
Result<Template> parse_template(const Json& json) {
  const Json* single = find_member(json, "single");
  const Json* specials = find_member(json, "special_tokens");
  if (single == nullptr || !single->is_array())
    return corrupt("tokenizer: the template's \"single\" is not a list");
  Template result;
  bool seen_text = false;
  for (const Json& part : *single) {
    if (find_member(part, "Sequence") != nullptr) {
      if (seen_text) return unsupported("tokenizer: a template that repeats the text");
      seen_text = true;
      continue;
    }
    const Json* special = find_member(part, "SpecialToken");
    if (special == nullptr)
      return unsupported("tokenizer: a template part that is no Sequence or SpecialToken");
    TESSERA_ASSIGN_OR_RETURN(const std::string name, read_string(*special, "id"));
    const Json* entry = specials == nullptr ? nullptr : find_member(*specials, name.c_str());
    const Json* ids = entry == nullptr ? nullptr : find_member(*entry, "ids");
    if (ids == nullptr || !ids->is_array())
      return corrupt("tokenizer: the template does not say the ids of \"" + name + "\"");
    for (const Json& id_json : *ids) {
      TESSERA_ASSIGN_OR_RETURN(const int32_t id, read_id(id_json));
      (seen_text ? result.after : result.before).push_back(id);
    }
  }
  if (!seen_text) return unsupported("tokenizer: a template without the text");
  return result;
}

// ["[CLS]", 101]
Result<int32_t> read_named_id(const Json& json, const char* key) {
  const Json* pair = find_member(json, key);
  if (pair == nullptr || !pair->is_array() || pair->size() != 2)
    return corrupt(std::string("tokenizer: \"") + key + "\" is not [token, id]");
  return read_id((*pair)[1]);
}

Status add_post_processor(const Json& json, Pipeline& pipeline) {
  if (json.is_null()) return {};
  TESSERA_ASSIGN_OR_RETURN(const std::string type, read_string(json, "type"));
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "Sequence") {
    const Json* list = find_member(json, "processors");
    if (list == nullptr || !list->is_array()) return corrupt("tokenizer: \"processors\" is not a list");
    for (const Json& entry : *list) TESSERA_RETURN_IF_ERROR(add_post_processor(entry, pipeline));
    return {};
  }
  Template around;
  if (type == "TemplateProcessing") {
    TESSERA_ASSIGN_OR_RETURN(around, parse_template(json));
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    TESSERA_ASSIGN_OR_RETURN(const int32_t cls, read_named_id(json, "cls"));
    TESSERA_ASSIGN_OR_RETURN(const int32_t sep, read_named_id(json, "sep"));
    around = {{cls}, {sep}};
  } else {
    return unsupported("tokenizer: a post_processor of type \"" + type + "\"");
  }
  pipeline.before.insert(pipeline.before.begin(), around.before.begin(), around.before.end());
  pipeline.after.insert(pipeline.after.end(), around.after.begin(), around.after.end());
  return {};
}

const Json& member_or_null(const Json& root, const char* key) {
  static const Json null;
  const Json* member = find_member(root, key);
  return member == nullptr ? null : *member;
}

}  // namespace

Result<TokenizerPtr> load_tokenizer_json(std::string_view tokenizer_json,
                                         std::string_view tokenizer_config_json) {
  const auto root = parse_json(tokenizer_json);
  if (!root.ok()) return corrupt("tokenizer.json: " + root.status().message());
  if (!root->is_object()) return corrupt("tokenizer.json is no JSON object");
  TESSERA_ASSIGN_OR_RETURN(const TokenizerConfig config, parse_tokenizer_config(tokenizer_config_json));
  Pipeline pipeline;
  TESSERA_ASSIGN_OR_RETURN(pipeline.normalizer, parse_normalizer(member_or_null(*root, "normalizer")));
  TESSERA_ASSIGN_OR_RETURN(pipeline.pre_tokenizers,
                           parse_pre_tokenizer(member_or_null(*root, "pre_tokenizer")));
  TESSERA_ASSIGN_OR_RETURN(pipeline.model, parse_model(*root));
  TESSERA_ASSIGN_OR_RETURN(pipeline.decoder, Decoder::parse(member_or_null(*root, "decoder")));
  TESSERA_ASSIGN_OR_RETURN(pipeline.added, read_added_tokens(*root, config, pipeline));
  TESSERA_RETURN_IF_ERROR(add_post_processor(member_or_null(*root, "post_processor"), pipeline));
  const auto id_of = [&](const std::string& token) {
    const AddedToken* added = pipeline.added.by_content(token);
    return added != nullptr ? std::optional<int32_t>(added->id) : pipeline.model->vocabulary().find(token);
  };
  if (!config.bos_token.empty()) pipeline.bos = id_of(config.bos_token);
  if (!config.eos_token.empty()) pipeline.eos = id_of(config.eos_token);
  return make_pipeline_tokenizer(std::move(pipeline));
}

}  // namespace tessera::text
