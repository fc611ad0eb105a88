// The one tokenizer behind every file format: added tokens, normalizer, pre-tokenizers, model, template,
// decoder.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_model.h"
#include "text/tokenizer.h"

namespace tessera::text {

struct Pipeline {
  std::unique_ptr<const Normalizer> normalizer;  // null: none
  PreTokenizers pre_tokenizers;
  std::unique_ptr<const TokenModel> model;
  Decoder decoder;
  AddedTokens added;
  std::vector<int32_t> before, after;  // what the template puts around a text
  std::optional<int32_t> bos, eos;
};

TokenizerPtr make_pipeline_tokenizer(Pipeline pipeline);

}  // namespace tessera::text
