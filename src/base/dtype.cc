#include "base/dtype.h"

#include <array>

namespace tessera {

const DTypeInfo& dtype_info(DType dtype) {
  static constexpr std::array<DTypeInfo, 20> kInfo{
      {{"F32", 1, 4},     {"F16", 1, 2},     {"BF16", 1, 2},     {"I8", 1, 1},       {"U8", 1, 1},
       {"I16", 1, 2},     {"I32", 1, 4},     {"I64", 1, 8},      {"F64", 1, 8},      {"BOOL", 1, 1},
       {"F8_E4M3", 1, 1}, {"F8_E5M2", 1, 1}, {"Q8_0", 32, 34},   {"Q4_0", 32, 18},   {"Q4_1", 32, 20},
       {"Q5_0", 32, 22},  {"Q5_1", 32, 24},  {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210}}};
  return kInfo[static_cast<size_t>(dtype)];
}

Result<uint64_t> dtype_bytes(DType dtype, uint64_t elements) {
  const DTypeInfo& info = dtype_info(dtype);
  if (elements % info.elements_per_block != 0)
    return corrupt(std::to_string(elements) + " elements are no whole number of " + std::string(info.name) +
                   " blocks");
  uint64_t blocks = elements / info.elements_per_block;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(blocks, static_cast<uint64_t>(info.bytes_per_block), &bytes))
    return corrupt("tensor size overflows 64 bits");
  return bytes;
}

float f16_to_f32(uint16_t v) {
  const uint32_t sign = static_cast<uint32_t>(v & 0x8000u) << 16;
  const uint32_t exponent = (v >> 10) & 0x1fu;
  uint32_t mantissa = v & 0x3ffu;
  if (exponent == 0x1f) {  // infinity, NaN (quieted, as F16C does)
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13) | (mantissa ? 0x400000u : 0u));
  }
  if (exponent == 0) {
    if (mantissa == 0) return std::bit_cast<float>(sign);
    int shift = 0;
    while ((mantissa & 0x400u) == 0) {
      mantissa <<= 1;
      ++shift;
    }
    return std::bit_cast<float>(sign | ((113u - static_cast<uint32_t>(shift)) << 23) |
                                ((mantissa & 0x3ffu) << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t f32_to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds past 65504
  if (magnitude < 0x38800000u) {  // subnormal or zero: the float adder does the rounding
    const float scaled = std::bit_cast<float>(magnitude) + std::bit_cast<float>(0x3f000000u);
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(scaled) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace tessera
