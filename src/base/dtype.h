// Element types of tensors in files, memory and on the wire, and the scalar conversions between them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace tessera {

// Plain types have one element a unit; the block types are GGUF's, elements_per_block values in
// bytes_per_block.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI8,
  kU8,
  kI16,
  kI32,
  kI64,
  kF64,
  kBool,
  kF8E4M3,
  kF8E5M2,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};

struct DTypeInfo {
  std::string_view name;  // "F32", "BF16", "Q4_K": GGUF's and safetensors' spelling
  uint32_t elements_per_block;
  uint32_t bytes_per_block;
};

const DTypeInfo& dtype_info(DType dtype);
inline bool is_quantised(DType dtype) {
  return dtype_info(dtype).elements_per_block > 1;
}
// Bytes of `elements` values; elements must be a multiple of the block. Checked for overflow.
Result<uint64_t> dtype_bytes(DType dtype, uint64_t elements);

// bfloat16 is the upper half of a float32. Rounds to nearest even; NaN stays NaN.
inline float bf16_to_f32(uint16_t v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v) << 16);
}
inline uint16_t f32_to_bf16(float f) {
  uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
// IEEE 754 binary16, round to nearest even, subnormals kept. Same bits as F16C.
float f16_to_f32(uint16_t v);
uint16_t f32_to_f16(float f);

}  // namespace tessera
