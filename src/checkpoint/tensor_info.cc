#include "checkpoint/tensor_info.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>

namespace tessera::checkpoint {

std::span<const uint8_t> TensorInfo::data() const {
  if (file == nullptr) return {};
  return file->bytes().subspan(offset, bytes);
}

uint64_t TensorInfo::elements() const {
  return std::accumulate(shape.begin(), shape.end(), uint64_t{1}, std::multiplies<>());
}

Result<uint64_t> tensor_bytes(DType dtype, std::span<const uint64_t> shape) {
  uint64_t elements = 1;
  for (uint64_t dimension : shape) {
    if (__builtin_mul_overflow(elements, dimension, &elements))
      return corrupt("the product of the dimensions overflows 64 bits");
  }
  const uint64_t block = dtype_info(dtype).elements_per_block;
  if (block > 1 && (shape.empty() || shape.back() % block != 0))
    return corrupt("a row is no whole number of " + std::string(dtype_info(dtype).name) + " blocks of " +
                   std::to_string(block));
  return dtype_bytes(dtype, elements);
}

Status check_distinct(std::span<const TensorInfo> tensors) {
  std::unordered_set<std::string_view> names;
  names.reserve(tensors.size());
  std::vector<const TensorInfo*> by_offset;
  by_offset.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) {
    if (!names.insert(tensor.name).second) return corrupt("tensor " + tensor.name + " appears twice");
    if (tensor.bytes > 0) by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->file.get(), a->offset) < std::pair(b->file.get(), b->offset);
  });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo& before = *by_offset[i - 1];
    if (before.file == by_offset[i]->file && by_offset[i]->offset - before.offset < before.bytes)
      return corrupt("tensors " + before.name + " and " + by_offset[i]->name + " overlap");
  }
  return {};
}

}  // namespace tessera::checkpoint
