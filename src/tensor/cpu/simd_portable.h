// The SIMD layer in plain C++: what every other layer must match bit for bit.
//
// The logical vector is always 16 floats; each operation is one IEEE operation per lane. max(a, b) and min(a,
// b) return b when either is NaN, as x86 does. Integer dot products are exact.
#pragma once

#include <cstdint>
#include <cstring>

namespace tessera::tensor::portable {

inline constexpr int kFloatRows = 4;  // rows and panels of a float32 register block
inline constexpr int kFloatPanels = 1;
inline constexpr int kQuantRows = 4;  // likewise of an int8 one
inline constexpr int kQuantPanels = 1;
inline constexpr int kAttentionPairs = 4;  // (row, head) pairs that share a page's loads

struct F32x16 {
  float v[16];
};
struct I32x16 {
  int32_t v[16];
};
struct Mask16 {
  bool v[16];
};

#define TESSERA_LANES for (int i = 0; i < 16; ++i)

inline uint32_t float_bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline float bits_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}

inline F32x16 set1(float x) {
  F32x16 r;
  TESSERA_LANES r.v[i] = x;
  return r;
}
inline F32x16 zero() {
  return set1(0.0f);
}
inline F32x16 load(const float* p) {
  F32x16 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store(float* p, F32x16 a) {
  std::memcpy(p, a.v, sizeof a.v);
}

#define TESSERA_BINARY(name, expression)   \
  inline F32x16 name(F32x16 a, F32x16 b) { \
    F32x16 r;                              \
    TESSERA_LANES r.v[i] = (expression);   \
    return r;                              \
  }
TESSERA_BINARY(add, a.v[i] + b.v[i])
TESSERA_BINARY(sub, a.v[i] - b.v[i])
TESSERA_BINARY(mul, a.v[i] * b.v[i])
TESSERA_BINARY(div, a.v[i] / b.v[i])
TESSERA_BINARY(max, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
TESSERA_BINARY(min, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
#undef TESSERA_BINARY

// a * b + c with one rounding
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  F32x16 r;
  TESSERA_LANES r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}
inline F32x16 round_even(F32x16 a) {
  F32x16 r;
  TESSERA_LANES r.v[i] = __builtin_rintf(a.v[i]);
  return r;
}
inline F32x16 abs(F32x16 a) {
  F32x16 r;
  TESSERA_LANES r.v[i] = bits_float(float_bits(a.v[i]) & 0x7fffffffu);
  return r;
}
inline F32x16 neg(F32x16 a) {
  F32x16 r;
  TESSERA_LANES r.v[i] = bits_float(float_bits(a.v[i]) ^ 0x80000000u);
  return r;
}
// magnitude of a with the sign of b
inline F32x16 copy_sign(F32x16 a, F32x16 b) {
  F32x16 r;
  TESSERA_LANES r.v[i] = bits_float((float_bits(a.v[i]) & 0x7fffffffu) | (float_bits(b.v[i]) & 0x80000000u));
  return r;
}
inline Mask16 less(F32x16 a, F32x16 b) {
  Mask16 r;
  TESSERA_LANES r.v[i] = a.v[i] < b.v[i];
  return r;
}
inline F32x16 select(Mask16 m, F32x16 yes, F32x16 no) {
  F32x16 r;
  TESSERA_LANES r.v[i] = m.v[i] ? yes.v[i] : no.v[i];
  return r;
}
// lanes [first, last)
inline Mask16 lane_range(int first, int last) {
  Mask16 r;
  TESSERA_LANES r.v[i] = i >= first && i < last;
  return r;
}
inline F32x16 load_n(const float* p, int n) {
  F32x16 r;
  TESSERA_LANES r.v[i] = i < n ? p[i] : 0.0f;
  return r;
}
inline void store_n(float* p, F32x16 a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
// ((0+8)+(4+12)) + ... : lanes i and i+8, then i+4, i+2, i+1
inline float sum_lanes(F32x16 a) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] + a.v[i + width];
  return a.v[0];
}
inline float max_lanes(F32x16 a) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
  return a.v[0];
}

inline float scalar_f16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u)
    return bits_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13) |
                      ((magnitude & 0x3ffu) ? 0x400000u : 0u));
  if (magnitude < 0x400u)  // subnormal: exact in float32
    return bits_float(float_bits(static_cast<float>(magnitude) * 0x1p-24f) | sign);
  return bits_float(sign | ((magnitude << 13) + 0x38000000u));
}
inline uint16_t scalar_to_f16(float f) {
  const uint32_t u = float_bits(f);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u)
    return static_cast<uint16_t>(sign | (float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}

inline F32x16 load_f16(const uint16_t* p) {
  F32x16 r;
  TESSERA_LANES r.v[i] = scalar_f16(p[i]);
  return r;
}
inline void store_f16(uint16_t* p, F32x16 a) {
  TESSERA_LANES p[i] = scalar_to_f16(a.v[i]);
}
inline F32x16 load_bf16(const uint16_t* p) {
  F32x16 r;
  TESSERA_LANES r.v[i] = bits_float(static_cast<uint32_t>(p[i]) << 16);
  return r;
}
inline void store_bf16(uint16_t* p, F32x16 a) {
  TESSERA_LANES {
    const uint32_t u = float_bits(a.v[i]);
    const uint32_t rounded =
        (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    p[i] = static_cast<uint16_t>(rounded);
  }
}
inline F32x16 load_u8(const uint8_t* p) {
  F32x16 r;
  TESSERA_LANES r.v[i] = static_cast<float>(p[i]);
  return r;
}
inline F32x16 load_s8(const uint8_t* p) {
  F32x16 r;
  TESSERA_LANES r.v[i] = static_cast<float>(static_cast<int8_t>(p[i]));
  return r;
}

inline I32x16 set1_int(int32_t x) {
  I32x16 r;
  TESSERA_LANES r.v[i] = x;
  return r;
}
// Nearest, ties to even; out of range and NaN give INT32_MIN.
inline I32x16 to_int(F32x16 a) {
  I32x16 r;
  TESSERA_LANES {
    const float f = __builtin_rintf(a.v[i]);
    r.v[i] = f >= -2147483648.0f && f < 2147483648.0f ? static_cast<int32_t>(f) : INT32_MIN;
  }
  return r;
}
inline F32x16 to_float(I32x16 a) {
  F32x16 r;
  TESSERA_LANES r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
inline I32x16 add_int(I32x16 a, I32x16 b) {
  I32x16 r;
  TESSERA_LANES r.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
  return r;
}
inline I32x16 sub_int(I32x16 a, I32x16 b) {
  I32x16 r;
  TESSERA_LANES r.v[i] = static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) - static_cast<uint32_t>(b.v[i]));
  return r;
}
inline I32x16 half_int(I32x16 a) {  // arithmetic shift right by one
  I32x16 r;
  TESSERA_LANES r.v[i] = a.v[i] >> 1;
  return r;
}
// 2^n for n in [-126, 127]
inline F32x16 power_of_two(I32x16 n) {
  F32x16 r;
  TESSERA_LANES r.v[i] = bits_float((static_cast<uint32_t>(n.v[i]) + 127u) << 23);
  return r;
}
// The low bytes of 16 integers in [-128, 127].
inline void store_s8(int8_t* p, I32x16 a) {
  TESSERA_LANES p[i] = static_cast<int8_t>(a.v[i]);
}
inline int32_t sum_lanes_int(I32x16 a) {
  int32_t sum = 0;
  TESSERA_LANES sum += a.v[i];
  return sum;
}
#undef TESSERA_LANES

// 64 bytes of weights: 16 columns of 4 values along k.
struct Bytes64 {
  uint8_t v[64];
};
inline constexpr bool kFlipSigned = false;  // whether dot_unsigned() stands in for signed weights, as w + 128
inline Bytes64 load_bytes(const uint8_t* p) {
  Bytes64 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store_bytes(uint8_t* p, Bytes64 a) {
  std::memcpy(p, a.v, sizeof a.v);
}
inline Bytes64 or_bytes(Bytes64 a, Bytes64 b) {
  for (int i = 0; i < 64; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] | b.v[i]);
  return a;
}
inline Bytes64 flip_signs(Bytes64 a) {  // w + 128 of signed bytes
  for (uint8_t& b : a.v) b ^= 0x80;
  return a;
}
// Every byte shifted left (right, where negative) and masked; the mask leaves out bits of neighbours.
inline Bytes64 bit_field(Bytes64 a, int left, uint8_t mask) {
  for (uint8_t& b : a.v) b = static_cast<uint8_t>((left >= 0 ? b << left : b >> -left) & mask);
  return a;
}
// -(x << kShift) in every lane
template <int kShift>
inline I32x16 minus_shifted(int32_t x) {
  return set1_int(-(x << kShift));
}

// out[r * NP + p] += 16 columns of panel p · row r over 16 values along k: quad(p, j) is the codes of values
// 4 j to 4 j + 3. kMax: the largest code; codes are unsigned.
template <int MR, int NP, int kMax, typename Quad>
inline void dot_unsigned(Quad&& quad, const int8_t* const* x, I32x16* out) {
  for (int j = 0; j < 4; ++j) {
    for (int p = 0; p < NP; ++p) {
      const Bytes64 w = quad(p, j);
      for (int r = 0; r < MR; ++r)
        for (int n = 0; n < 16; ++n)
          for (int b = 0; b < 4; ++b) out[r * NP + p].v[n] += w.v[n * 4 + b] * x[r][j * 4 + b];
    }
  }
}
// Signed codes.
template <int MR, int NP, typename Quad>
inline void dot_signed(Quad&& quad, const int8_t* const* x, I32x16* out) {
  for (int j = 0; j < 4; ++j) {
    for (int p = 0; p < NP; ++p) {
      const Bytes64 w = quad(p, j);
      for (int r = 0; r < MR; ++r)
        for (int n = 0; n < 16; ++n)
          for (int b = 0; b < 4; ++b)
            out[r * NP + p].v[n] += static_cast<int8_t>(w.v[n * 4 + b]) * x[r][j * 4 + b];
    }
  }
}

}  // namespace tessera::tensor::portable
