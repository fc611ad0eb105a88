#include <cstdlib>

#include "text/detokenizer.h"
#include "text/tokenizer.h"

// A tokenizer file, a NUL, a text: what loads must encode and decode without a crash, and the stream must
// agree.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\0'), size);
  auto tokenizer = tessera::text::load_tokenizer_json(input.substr(0, cut), "");
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->encode(input.substr(std::min(cut + 1, size)));
  if (!ids.ok()) return 0;
  const auto text = (*tokenizer)->decode(*ids);
  if (!text.ok()) return 0;
  tessera::text::IncrementalDetokenizer detokenizer(*tokenizer, false);
  std::string streamed;
  for (const int32_t id : *ids) streamed += detokenizer.push(id) + (*tokenizer)->token_bytes(id).substr(0, 0);
  if (streamed + detokenizer.finish() != *text) std::abort();
  return 0;
}
