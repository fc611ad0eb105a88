// The SIMD layer on AVX2, FMA and F16C; same bits as simd_portable.h, where the operations are explained.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace tessera::tensor::avx2 {

inline constexpr int kFloatRows = 6;  // rows and panels of a float32 register block
inline constexpr int kFloatPanels = 1;
inline constexpr int kQuantRows = 4;  // likewise of an int8 one
inline constexpr int kQuantPanels = 1;
inline constexpr int kAttentionPairs = 4;  // (row, head) pairs that share a page's loads

struct F32x16 {
  __m256 lo, hi;
};
struct I32x16 {
  __m256i lo, hi;
};
struct Mask16 {
  __m256 lo, hi;
};

inline F32x16 set1(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline F32x16 zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
inline F32x16 load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
inline void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}

#define TESSERA_BINARY(name, intrinsic)                    \
  inline F32x16 name(F32x16 a, F32x16 b) {                 \
    return {intrinsic(a.lo, b.lo), intrinsic(a.hi, b.hi)}; \
  }
TESSERA_BINARY(add, _mm256_add_ps)
TESSERA_BINARY(sub, _mm256_sub_ps)
TESSERA_BINARY(mul, _mm256_mul_ps)
TESSERA_BINARY(div, _mm256_div_ps)
TESSERA_BINARY(max, _mm256_max_ps)
TESSERA_BINARY(min, _mm256_min_ps)
#undef TESSERA_BINARY

inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 round_even(F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
inline F32x16 abs(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline F32x16 neg(F32x16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(sign, a.lo), _mm256_xor_ps(sign, a.hi)};
}
inline F32x16 copy_sign(F32x16 a, F32x16 b) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(sign, a.lo), _mm256_and_ps(sign, b.lo)),
          _mm256_or_ps(_mm256_andnot_ps(sign, a.hi), _mm256_and_ps(sign, b.hi))};
}
inline Mask16 less(F32x16 a, F32x16 b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline F32x16 select(Mask16 m, F32x16 yes, F32x16 no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}
inline Mask16 lane_range(int first, int last) {
  const __m256i lane_lo = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i lane_hi = _mm256_add_epi32(lane_lo, _mm256_set1_epi32(8));
  const __m256i from = _mm256_set1_epi32(first - 1);
  const __m256i to = _mm256_set1_epi32(last);
  const auto inside = [&](__m256i lane) {
    return _mm256_castsi256_ps(
        _mm256_and_si256(_mm256_cmpgt_epi32(lane, from), _mm256_cmpgt_epi32(to, lane)));
  };
  return {inside(lane_lo), inside(lane_hi)};
}
inline F32x16 load_n(const float* p, int n) {
  if (n >= 16) return load(p);
  const Mask16 m = lane_range(0, n);
  const __m256 lo = _mm256_maskload_ps(p, _mm256_castps_si256(m.lo));
  return {lo, n > 8 ? _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.hi)) : _mm256_setzero_ps()};
}
inline void store_n(float* p, F32x16 a, int n) {
  if (n >= 16) return store(p, a);
  const Mask16 m = lane_range(0, n);
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.lo), a.lo);
  if (n > 8) _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.hi), a.hi);
}
inline float sum_lanes(F32x16 a) {
  const __m256 s8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
inline float max_lanes(F32x16 a) {
  const __m256 s8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

inline F32x16 load_f16(const uint16_t* p) {
  const __m128i* h = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
inline void store_f16(uint16_t* p, F32x16 a) {
  __m128i* h = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(h, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(h + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
inline F32x16 load_bf16(const uint16_t* p) {
  const __m128i* h = reinterpret_cast<const __m128i*>(p);
  const auto widen = [](__m128i v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
  };
  return {widen(_mm_loadu_si128(h)), widen(_mm_loadu_si128(h + 1))};
}
inline __m128i to_bf16(__m256 a) {
  const __m256i u = _mm256_castps_si256(a);
  const __m256i upper = _mm256_srli_epi32(u, 16);
  const __m256i bias =
      _mm256_add_epi32(_mm256_and_si256(upper, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, bias), 16);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i v = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}
inline void store_bf16(uint16_t* p, F32x16 a) {
  __m128i* h = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(h, to_bf16(a.lo));
  _mm_storeu_si128(h + 1, to_bf16(a.hi));
}
inline F32x16 load_u8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)))};
}
inline F32x16 load_s8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))};
}

inline I32x16 set1_int(int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
inline I32x16 to_int(F32x16 a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
inline F32x16 to_float(I32x16 a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
inline I32x16 add_int(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
inline I32x16 sub_int(I32x16 a, I32x16 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
inline I32x16 half_int(I32x16 a) {
  return {_mm256_srai_epi32(a.lo, 1), _mm256_srai_epi32(a.hi, 1)};
}
inline F32x16 power_of_two(I32x16 n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.lo, bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.hi, bias), 23))};
}
inline void store_s8(int8_t* p, I32x16 a) {
  const __m256i low_byte = _mm256_set1_epi32(0xff);
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_and_si256(a.lo, low_byte), _mm256_and_si256(a.hi, low_byte)), 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}
inline int32_t sum_lanes_int(I32x16 a) {
  const __m256i s8 = _mm256_add_epi32(a.lo, a.hi);
  const __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
  const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
}

// 64 bytes of weights: 16 columns of 4 values along k.
struct Bytes64 {
  __m256i lo, hi;
};
inline constexpr bool kFlipSigned = false;
inline Bytes64 load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline void store_bytes(uint8_t* p, Bytes64 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
}
inline Bytes64 or_bytes(Bytes64 a, Bytes64 b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
inline Bytes64 flip_signs(Bytes64 a) {
  const __m256i sign = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(a.lo, sign), _mm256_xor_si256(a.hi, sign)};
}
inline Bytes64 bit_field(Bytes64 a, int left, uint8_t mask) {
  const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
  if (left > 0) a = {_mm256_slli_epi16(a.lo, left), _mm256_slli_epi16(a.hi, left)};
  if (left < 0) a = {_mm256_srli_epi16(a.lo, -left), _mm256_srli_epi16(a.hi, -left)};
  return {_mm256_and_si256(a.lo, m), _mm256_and_si256(a.hi, m)};
}
template <int kShift>
inline I32x16 minus_shifted(int32_t x) {
  const __m256i v = _mm256_set1_epi32(-(x << kShift));
  return {v, v};
}

inline __m256i broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, 4);
  return _mm256_set1_epi32(quad);
}

// Each is one statement: left to itself, the compiler computes all products of a block first and spills the
// sums. sum += w · q in 16 bits, codes unsigned
inline void add_products(__m256i& sum, __m256i w, __m256i q) {
  __m256i product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(q));
}
// sum += w · q, codes signed, as |w| · sign(q, w): 128 * 127 * 2 fits 16 bits, so nothing saturates
inline void add_signed_products(__m256i& sum, __m256i w, __m256i magnitude, __m256i q, __m256i ones) {
  __m256i product;
  asm("vpsignb %2, %4, %1\n\tvpmaddubsw %1, %3, %1\n\tvpmaddwd %5, %1, %1\n\tvpaddd %1, %0, %0"
      : "+x"(sum), "=&x"(product)
      : "x"(w), "x"(magnitude), "x"(q), "x"(ones));
}

// vpmaddubsw sums two products in 16 bits, where as many quads as fit are added before they are widened.
template <int MR, int NP, int kMax, typename Quad>
inline void dot_unsigned(Quad&& quad, const int8_t* const* x, I32x16* out) {
  constexpr int kSafe = 32767 / (kMax * 127 * 2);
  static_assert(kSafe >= 1);
  constexpr int kRun = kSafe >= 4 ? 4 : kSafe >= 2 ? 2 : 1;
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int first = 0; first < 4; first += kRun) {
    __m256i lo[MR * NP], hi[MR * NP];
#pragma GCC unroll 8
    for (int i = 0; i < MR * NP; ++i) lo[i] = hi[i] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int j = first; j < first + kRun; ++j) {
#pragma GCC unroll 2
      for (int p = 0; p < NP; ++p) {
        const Bytes64 w = quad(p, j);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
          const __m256i q = broadcast_quad(x[r] + j * 4);
          add_products(lo[r * NP + p], w.lo, q);
          add_products(hi[r * NP + p], w.hi, q);
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR * NP; ++i) {
      out[i].lo = _mm256_add_epi32(out[i].lo, _mm256_madd_epi16(lo[i], ones));
      out[i].hi = _mm256_add_epi32(out[i].hi, _mm256_madd_epi16(hi[i], ones));
    }
  }
}
template <int MR, int NP, typename Quad>
inline void dot_signed(Quad&& quad, const int8_t* const* x, I32x16* out) {
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) {
      const Bytes64 w = quad(p, j);
      const __m256i a_lo = _mm256_abs_epi8(w.lo);
      const __m256i a_hi = _mm256_abs_epi8(w.hi);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const __m256i q = broadcast_quad(x[r] + j * 4);
        add_signed_products(out[r * NP + p].lo, w.lo, a_lo, q, ones);
        add_signed_products(out[r * NP + p].hi, w.hi, a_hi, q, ones);
      }
    }
  }
}

}  // namespace tessera::tensor::avx2
