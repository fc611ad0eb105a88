// The SIMD layer on AVX-512 (F, BW, VL, DQ, VNNI); same bits as simd_portable.h, where the operations are
// explained.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace tessera::tensor::avx512 {

inline constexpr int kFloatRows = 8;  // rows and panels of a float32 register block
inline constexpr int kFloatPanels = 2;
inline constexpr int kQuantRows = 4;  // likewise of an int8 one
inline constexpr int kQuantPanels = 2;
inline constexpr int kAttentionPairs = 8;  // (row, head) pairs that share a page's loads

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};
struct Mask16 {
  __mmask16 v;
};

inline F32x16 set1(float x) {
  return {_mm512_set1_ps(x)};
}
inline F32x16 zero() {
  return {_mm512_setzero_ps()};
}
inline F32x16 load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void store(float* p, F32x16 a) {
  _mm512_storeu_ps(p, a.v);
}

#define TESSERA_BINARY(name, intrinsic)    \
  inline F32x16 name(F32x16 a, F32x16 b) { \
    return {intrinsic(a.v, b.v)};          \
  }
TESSERA_BINARY(add, _mm512_add_ps)
TESSERA_BINARY(sub, _mm512_sub_ps)
TESSERA_BINARY(mul, _mm512_mul_ps)
TESSERA_BINARY(div, _mm512_div_ps)
TESSERA_BINARY(max, _mm512_max_ps)
TESSERA_BINARY(min, _mm512_min_ps)
#undef TESSERA_BINARY

inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline F32x16 round_even(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline F32x16 abs(F32x16 a) {
  return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)};
}
inline F32x16 neg(F32x16 a) {
  return {_mm512_xor_ps(_mm512_set1_ps(-0.0f), a.v)};
}
inline F32x16 copy_sign(F32x16 a, F32x16 b) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(sign, a.v), _mm512_and_ps(sign, b.v))};
}
inline Mask16 less(F32x16 a, F32x16 b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
inline F32x16 select(Mask16 m, F32x16 yes, F32x16 no) {
  return {_mm512_mask_blend_ps(m.v, no.v, yes.v)};
}
inline Mask16 lane_range(int first, int last) {
  const uint32_t below_last = last >= 16 ? 0xffffu : last <= 0 ? 0u : (1u << last) - 1u;
  const uint32_t below_first = first >= 16 ? 0xffffu : first <= 0 ? 0u : (1u << first) - 1u;
  return {static_cast<__mmask16>(below_last & ~below_first)};
}
inline F32x16 load_n(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(lane_range(0, n).v, p)};
}
inline void store_n(float* p, F32x16 a, int n) {
  _mm512_mask_storeu_ps(p, lane_range(0, n).v, a.v);
}
inline __m256 upper_half(__m512 a) {
  return _mm512_extractf32x8_ps(a, 1);
}
inline float sum_lanes(F32x16 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), upper_half(a.v));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
inline float max_lanes(F32x16 a) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), upper_half(a.v));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

inline __m256i load_16x16(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline F32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(load_16x16(p))};
}
inline void store_f16(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline F32x16 load_bf16(const uint16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_16x16(p)), 16))};
}
// Not vcvtneps2bf16: that one flushes subnormals.
inline void store_bf16(uint16_t* p, F32x16 a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i upper = _mm512_srli_epi32(u, 16);
  const __m512i bias =
      _mm512_add_epi32(_mm512_and_si512(upper, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, bias), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i v = _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
}
inline F32x16 load_u8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v))};
}
inline F32x16 load_s8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v))};
}

inline I32x16 set1_int(int32_t x) {
  return {_mm512_set1_epi32(x)};
}
inline I32x16 to_int(F32x16 a) {
  return {_mm512_cvtps_epi32(a.v)};
}
inline F32x16 to_float(I32x16 a) {
  return {_mm512_cvtepi32_ps(a.v)};
}
inline I32x16 add_int(I32x16 a, I32x16 b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
inline I32x16 sub_int(I32x16 a, I32x16 b) {
  return {_mm512_sub_epi32(a.v, b.v)};
}
inline I32x16 half_int(I32x16 a) {
  return {_mm512_srai_epi32(a.v, 1)};
}
inline F32x16 power_of_two(I32x16 n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))};
}
inline void store_s8(int8_t* p, I32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
inline int32_t sum_lanes_int(I32x16 a) {
  return _mm512_reduce_add_epi32(a.v);
}

// 64 bytes of weights: 16 columns of 4 values along k.
struct Bytes64 {
  __m512i v;
};
// vpdpbusd takes unsigned weights only: signed ones are read as w + 128.
inline constexpr bool kFlipSigned = true;
inline Bytes64 load_bytes(const uint8_t* p) {
  return {_mm512_loadu_si512(p)};
}
inline void store_bytes(uint8_t* p, Bytes64 a) {
  _mm512_storeu_si512(p, a.v);
}
inline Bytes64 or_bytes(Bytes64 a, Bytes64 b) {
  return {_mm512_or_si512(a.v, b.v)};
}
inline Bytes64 flip_signs(Bytes64 a) {
  return {_mm512_xor_si512(a.v, _mm512_set1_epi8(-128))};
}
inline Bytes64 bit_field(Bytes64 a, int left, uint8_t mask) {
  if (left > 0) a.v = _mm512_sll_epi16(a.v, _mm_cvtsi32_si128(left));
  if (left < 0) a.v = _mm512_srl_epi16(a.v, _mm_cvtsi32_si128(-left));
  return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(mask)))};
}
template <int kShift>
inline I32x16 minus_shifted(int32_t x) {
  return {_mm512_set1_epi32(-(x << kShift))};
}

inline __m512i broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, 4);
  return _mm512_set1_epi32(quad);
}

template <int MR, int NP, int kMax, typename Quad>
inline void dot_unsigned(Quad&& quad, const int8_t* const* x, I32x16* out) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    Bytes64 w[NP];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) w[p] = quad(p, j);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const __m512i q = broadcast_quad(x[r] + j * 4);
#pragma GCC unroll 2
      for (int p = 0; p < NP; ++p) out[r * NP + p].v = _mm512_dpbusd_epi32(out[r * NP + p].v, w[p].v, q);
    }
  }
}

}  // namespace tessera::tensor::avx512
