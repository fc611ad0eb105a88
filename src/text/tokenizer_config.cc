#include "text/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "text/json_fields.h"
#include "text/token_model.h"

namespace tessera::text {
namespace {

// A token is a string or an object with "content".
Result<std::string> read_token(const Json& config, const char* key) {
  const Json* member = find_member(config, key);
  if (member != nullptr && member->is_object()) return read_string(*member, "content");
  return read_string(config, key, "");
}

Result<std::optional<bool>> read_flag(const Json& config, const char* key) {
  if (find_member(config, key) == nullptr) return std::optional<bool>();
  TESSERA_ASSIGN_OR_RETURN(const bool value, read_bool(config, key, false));
  return std::optional<bool>(value);
}

}  // namespace

Result<AddedToken> parse_added_token(const Json& json) {
  AddedToken token;
  TESSERA_ASSIGN_OR_RETURN(token.content, read_string(json, "content"));
  TESSERA_ASSIGN_OR_RETURN(token.single_word, read_bool(json, "single_word", false));
  TESSERA_ASSIGN_OR_RETURN(token.lstrip, read_bool(json, "lstrip", false));
  TESSERA_ASSIGN_OR_RETURN(token.rstrip, read_bool(json, "rstrip", false));
  TESSERA_ASSIGN_OR_RETURN(token.special, read_bool(json, "special", false));
  TESSERA_ASSIGN_OR_RETURN(token.match_normalized, read_bool(json, "normalized", !token.special));
  return token;
}

Result<TokenizerConfig> parse_tokenizer_config(std::string_view text) {
  TokenizerConfig config;
  if (text.empty()) return config;
  const auto json = parse_json(text);
  if (!json.ok()) return corrupt("tokenizer_config.json: " + json.status().message());
  if (!json->is_object()) return corrupt("tokenizer_config.json is no JSON object");
  TESSERA_ASSIGN_OR_RETURN(config.bos_token, read_token(*json, "bos_token"));
  TESSERA_ASSIGN_OR_RETURN(config.eos_token, read_token(*json, "eos_token"));
  TESSERA_ASSIGN_OR_RETURN(config.add_bos_token, read_flag(*json, "add_bos_token"));
  TESSERA_ASSIGN_OR_RETURN(config.add_eos_token, read_flag(*json, "add_eos_token"));
  TESSERA_ASSIGN_OR_RETURN(config.legacy, read_flag(*json, "legacy"));
  const Json* added = find_member(*json, "added_tokens_decoder");
  if (added == nullptr) return config;
  if (!added->is_object()) return corrupt("tokenizer_config.json: \"added_tokens_decoder\" is no object");
  for (const auto& [key, entry] : added->items()) {
    TESSERA_ASSIGN_OR_RETURN(AddedToken token, parse_added_token(entry));
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id < 0 ||
        token.id > Vocabulary::kMaxId)
      return corrupt("tokenizer_config.json: \"" + key + "\" is no token id");
    config.added_tokens.push_back(std::move(token));
  }
  std::sort(config.added_tokens.begin(), config.added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return config;
}

}  // namespace tessera::text
