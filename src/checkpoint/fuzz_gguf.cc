#include <cstdlib>

#include "checkpoint/gguf.h"

// Whatever parses must keep its promises: every tensor inside the file, with the bytes its shape needs.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto contents = tessera::checkpoint::parse_gguf({data, size});
  if (!contents.ok()) return 0;
  for (const auto& tensor : contents->tensors) {
    if (tensor.offset > size || tensor.bytes > size - tensor.offset) std::abort();
    auto bytes = tessera::checkpoint::tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes.ok() || *bytes != tensor.bytes) std::abort();
  }
  return 0;
}
