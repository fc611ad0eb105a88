// Where one tensor lies in a model's files: a checked description, not the values.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/files.h"

namespace tessera::checkpoint {

// Made only by the readers of this folder, which guarantee: `bytes` is what dtype and shape need, and
// [offset, offset + bytes) lies inside the file. Holding one keeps its file mapped.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;  // row-major, outermost first; also for GGUF, whose files write it reversed
  std::shared_ptr<const MappedFile> file;  // null only in what parse_gguf / parse_safetensors return
  uint64_t offset = 0;                     // from the start of the file
  uint64_t bytes = 0;

  // A view into the map: nothing is read until touched. No alignment is promised: safetensors packs tensors.
  // Empty while `file` is null.
  std::span<const uint8_t> data() const;
  uint64_t elements() const;
};

// Bytes that dtype and shape need; the product of the dimensions is checked for overflow, and the innermost
// dimension must be whole blocks of a quantised type.
Result<uint64_t> tensor_bytes(DType dtype, std::span<const uint64_t> shape);

// Refuses tensors that share a name or a byte of the same file.
Status check_distinct(std::span<const TensorInfo> tensors);

}  // namespace tessera::checkpoint
