#include "text/detokenizer.h"

namespace tessera::text {

IncrementalDetokenizer::IncrementalDetokenizer(TokenizerPtr tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), stream_(tokenizer_->open_stream(skip_special)) {}

std::string IncrementalDetokenizer::push(int32_t id) {
  auto text = stream_->push(id);
  return text.ok() ? *std::move(text) : std::string();
}

std::string IncrementalDetokenizer::finish() {
  auto text = stream_->finish();
  return text.ok() ? *std::move(text) : std::string();
}

}  // namespace tessera::text
