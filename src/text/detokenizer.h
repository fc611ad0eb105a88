// Token ids to text while they come in.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace tessera::text {

// What push and finish give, joined, is Tokenizer::decode of all ids; no part ends inside a character. Text
// is held back only while a later token could still change it.
class IncrementalDetokenizer {
 public:
  explicit IncrementalDetokenizer(TokenizerPtr tokenizer, bool skip_special = true);
  // An id outside the vocabulary adds nothing.
  std::string push(int32_t id);
  // The rest; after it the object is used up.
  std::string finish();

 private:
  TokenizerPtr tokenizer_;
  std::unique_ptr<TokenStream> stream_;
};

}  // namespace tessera::text
