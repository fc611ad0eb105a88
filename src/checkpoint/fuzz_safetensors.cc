#include <cstdlib>

#include "checkpoint/safetensors.h"

// Whatever parses must keep its promises: every tensor inside the file, with the bytes its shape needs.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tessera::checkpoint::SafetensorsMetadata metadata;
  auto tensors = tessera::checkpoint::parse_safetensors({data, size}, &metadata);
  if (!tensors.ok()) return 0;
  for (const auto& tensor : *tensors) {
    if (tensor.offset > size || tensor.bytes > size - tensor.offset) std::abort();
    auto bytes = tessera::checkpoint::tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes.ok() || *bytes != tensor.bytes) std::abort();
  }
  return 0;
}
