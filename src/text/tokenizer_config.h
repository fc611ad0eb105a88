// tokenizer_config.json: what it adds to the tokenizer's own file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/added_tokens.h"

namespace tessera::text {

struct TokenizerConfig {
  std::string bos_token, eos_token;      // empty: not named
  std::vector<AddedToken> added_tokens;  // by ascending id
  std::optional<bool> add_bos_token, add_eos_token, legacy;
};

// An empty text gives an empty config.
Result<TokenizerConfig> parse_tokenizer_config(std::string_view text);
// One entry of "added_tokens"; the id is not read.
Result<AddedToken> parse_added_token(const Json& json);

}  // namespace tessera::text
