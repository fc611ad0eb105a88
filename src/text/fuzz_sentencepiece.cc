#include <cstdlib>

#include "base/utf8.h"
#include "text/tokenizer.h"

// The first byte says how long the text at the end is; the rest is a model. What loads must encode the text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const size_t text_size = std::min<size_t>(data[0], size - 1);
  auto tokenizer = tessera::text::load_sentencepiece({data + 1, size - 1 - text_size}, "");
  if (!tokenizer.ok()) return 0;
  const std::string text =
      tessera::replace_invalid_utf8({reinterpret_cast<const char*>(data) + size - text_size, text_size});
  const auto ids = (*tokenizer)->encode(text);
  if (!ids.ok()) return 0;
  const auto decoded = (*tokenizer)->decode(*ids);
  if (!decoded.ok() || !tessera::is_valid_utf8(*decoded)) std::abort();
  return 0;
}
