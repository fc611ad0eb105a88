#include "tensor/cpu/block_formats.h"

#include <cstring>
#include <span>
#include <string>

#include "tensor/cpu/cpu_backend.h"

namespace tessera::tensor {

namespace {

uint16_t u16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
uint32_t u32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

// 16 bytes: values 0..15 in the low halves, 16..31 in the high ones.
void nibbles(const uint8_t* q, uint8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = q[i] & 15;
    code[i + 16] = q[i] >> 4;
  }
}
void fifth_bits(uint32_t high, uint8_t* code) {
  for (int i = 0; i < 32; ++i) code[i] = static_cast<uint8_t>(code[i] | ((high >> i) & 1u) << 4);
}

// The 6-bit scale and minimum of group g (0..7), packed in 12 bytes.
void k_scales(const uint8_t* s, int64_t g, GroupCodes& out) {
  if (g < 4) {
    out.sub_scale[0] = s[g] & 63;
    out.sub_min = s[g + 4] & 63;
  } else {
    out.sub_scale[0] = static_cast<uint8_t>((s[g + 4] & 15) | (s[g - 4] >> 6) << 4);
    out.sub_min = static_cast<uint8_t>((s[g + 4] >> 4) | (s[g] >> 6) << 4);
  }
}
// Q4_K, Q5_K: 32 bytes hold two groups, the even one in the low halves.
void k_nibbles(const uint8_t* qs, int64_t g, uint8_t* code) {
  const uint8_t* q = qs + g / 2 * 32;
  for (int i = 0; i < 32; ++i) code[i] = g % 2 == 0 ? q[i] & 15 : q[i] >> 4;
}

void read_q6_k(const uint8_t* b, int64_t g, GroupCodes& out) {
  const int64_t half = g / 4;
  const int64_t quarter = g % 4;
  const uint8_t* low = b + half * 64 + (quarter % 2) * 32;
  const uint8_t* high = b + 128 + half * 32;
  for (int i = 0; i < 32; ++i) {
    const int nibble = quarter < 2 ? low[i] & 15 : low[i] >> 4;
    out.code[i] = static_cast<uint8_t>(nibble | ((high[i] >> (2 * quarter)) & 3) << 4);
  }
  out.sub_scale[0] = b[192 + half * 8 + quarter * 2];
  out.sub_scale[1] = b[192 + half * 8 + quarter * 2 + 1];
  out.scale = u16(b + 208);
}

}  // namespace

void read_group(DType dtype, const uint8_t* row, int64_t group, GroupCodes& out) {
  const DTypeInfo& info = dtype_info(dtype);
  const int64_t per_block = info.elements_per_block / 32;
  const uint8_t* b = row + group / per_block * info.bytes_per_block;
  const int64_t g = group % per_block;
  switch (dtype) {
    case DType::kQ8_0:
      out.scale = u16(b);
      std::memcpy(out.code, b + 2, 32);
      break;
    case DType::kQ4_0:
      out.scale = u16(b);
      nibbles(b + 2, out.code);
      break;
    case DType::kQ4_1:
      out.scale = u16(b);
      out.min = u16(b + 2);
      nibbles(b + 4, out.code);
      break;
    case DType::kQ5_0:
      out.scale = u16(b);
      nibbles(b + 6, out.code);
      fifth_bits(u32(b + 2), out.code);
      break;
    case DType::kQ5_1:
      out.scale = u16(b);
      out.min = u16(b + 2);
      nibbles(b + 8, out.code);
      fifth_bits(u32(b + 4), out.code);
      break;
    case DType::kQ4_K:
      out.scale = u16(b);
      out.min = u16(b + 2);
      k_scales(b + 4, g, out);
      k_nibbles(b + 16, g, out.code);
      break;
    case DType::kQ5_K:
      out.scale = u16(b);
      out.min = u16(b + 2);
      k_scales(b + 4, g, out);
      k_nibbles(b + 48, g, out.code);
      for (int i = 0; i < 32; ++i)
        out.code[i] = static_cast<uint8_t>(out.code[i] | ((b[16 + i] >> g) & 1) << 4);
      break;
    case DType::kQ6_K:
      read_q6_k(b, g, out);
      break;
    default:
      TESSERA_CHECK(false, "not a block-quantised type");
  }
}

void group_values(DType dtype, const GroupCodes& group, float* out) {
  const float scale = f16_to_f32(group.scale);
  const float min = f16_to_f32(group.min);
  switch (dtype) {
    case DType::kQ8_0:
      for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(group.code[i]));
      break;
    case DType::kQ4_0:
      for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(group.code[i] - 8);
      break;
    case DType::kQ5_0:
      for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(group.code[i] - 16);
      break;
    case DType::kQ4_1:
    case DType::kQ5_1:
      for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(group.code[i]) + min;
      break;
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const float s = scale * static_cast<float>(group.sub_scale[0]);
      const float m = min * static_cast<float>(group.sub_min);
      for (int i = 0; i < 32; ++i) out[i] = s * static_cast<float>(group.code[i]) - m;
      break;
    }
    case DType::kQ6_K:
      for (int i = 0; i < 32; ++i) {
        const float s = scale * static_cast<float>(static_cast<int8_t>(group.sub_scale[i / 16]));
        out[i] = s * static_cast<float>(group.code[i] - 32);
      }
      break;
    default:
      TESSERA_CHECK(false, "not a block-quantised type");
  }
}

Status dequantise(DType dtype, std::span<const uint8_t> bytes, std::span<float> out) {
  TESSERA_ASSIGN_OR_RETURN(const uint64_t wanted, dtype_bytes(dtype, out.size()));
  if (bytes.size() != wanted)
    return corrupt(std::to_string(out.size()) + " values of " + std::string(dtype_info(dtype).name) +
                   " are " + std::to_string(wanted) + " bytes, not " + std::to_string(bytes.size()));
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return {};
    case DType::kF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = f16_to_f32(u16(bytes.data() + 2 * i));
      return {};
    case DType::kBF16:
      for (size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_f32(u16(bytes.data() + 2 * i));
      return {};
    default:
      break;
  }
  if (!is_quantised(dtype))
    return unsupported("weights of type " + std::string(dtype_info(dtype).name) + " are not supported");
  GroupCodes group;
  for (size_t g = 0; g < out.size() / 32; ++g) {
    read_group(dtype, bytes.data(), static_cast<int64_t>(g), group);
    group_values(dtype, group, out.data() + g * 32);
  }
  return {};
}

}  // namespace tessera::tensor
