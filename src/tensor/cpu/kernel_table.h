// The kernels of one instruction set, as a table of functions over plain memory.
//
// kernels/*.inc are compiled once per instruction set over simd_*.h; nothing but these structs crosses the
// border, so that no inline function of the standard library is ever compiled for the wrong processor.
#pragma once

#include <cstdint>

namespace tessera::tensor {

// How the codes and scales of a packed weight look. Panels of 16 rows of W, one row a lane; along k:
//   16- and 32-bit floats: [k][16]
//   codes in groups of 32 along k, quads of 4 values: 8-bit ones [k / 4][16][4] bytes; narrower ones, a
//   group, [4 quads][16][4] bytes with the low 4 bits of quad j in the low half of a byte and of quad j + 4
//   in the high half, then the fifth bits [16][4], quad j at bit j, or the two upper bits of 6 [2
//   halves][16][4], quad j of four at bit 2 j
// value = scale * (code - offset) + min
enum class WeightKind : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8,   // signed 8-bit; f16 scale a group (Q8_0, kInt8)
  kQ5,   // 0..31, offset 16; f16 scale a group (Q5_0)
  kQ5M,  // 0..31; f16 scale and min a group (Q5_1)
  kQ4,   // 0..15, offset 8; f16 scale a group (Q4_0)
  kQ4M,  // 0..15; f16 scale and min a group (Q4_1, kInt4)
  kQ4K,  // 0..15; f16 d and dmin per 256, 8-bit scale and min a group: d * s * code - dmin * m
  kQ5K,  // 0..31; likewise
  kQ6K,  // 0..63, offset 32, groups of 16; f16 d per 256, signed 8-bit scale a group
};

constexpr int kPanelRows = 16;
constexpr int kGroup = 32;        // codes come in groups of 32 along k
constexpr int kHalfGroup = 16;    // activations have a scale for each half: less error than one for 32
constexpr int kSuperGroups = 8;   // groups of a K-quant's super block
constexpr int kMaxTaskRows = 64;  // rows of one matmul task

// A number known when a kernel is compiled.
template <int kNumber>
struct Constant {
  static constexpr int kValue = kNumber;
};
constexpr int code_bits(WeightKind kind) {
  switch (kind) {
    case WeightKind::kQ8:
      return 8;
    case WeightKind::kQ6K:
      return 6;
    case WeightKind::kQ5:
    case WeightKind::kQ5M:
    case WeightKind::kQ5K:
      return 5;
    default:
      return 4;
  }
}
constexpr int64_t code_group_bytes(WeightKind kind) {
  return int64_t{code_bits(kind)} * kGroup * kPanelRows / 8;
}

// Byte offsets inside a panel; 0 where the kind has no such part.
struct PanelLayout {
  int64_t k = 0;          // elements along k
  int64_t groups = 0;     // of 32, the last one zero-padded; 0 for float kinds
  int64_t scale = 0;      // f16 [groups or super blocks][16]
  int64_t min = 0;        // f16 likewise
  int64_t sub_scale = 0;  // 8 bit [groups][16]; Q6_K [2 groups][16]
  int64_t sub_min = 0;    // 8 bit [groups][16]
  int64_t stride = 0;     // bytes of a panel
};

// Rows of int8 activations: x = scale[half group] * q. All arrays are [rows][groups ...].
struct QuantRows {
  int8_t* q = nullptr;          // [rows][groups * 32]
  float* scale = nullptr;       // [rows][groups * 2]
  float* scaled_sum = nullptr;  // [rows][groups]: sum of x as quantised
  int32_t* sum16 = nullptr;     // [rows][groups * 2]: sums of q
  int64_t groups = 0;
};

// tile[panel][row][16] = x[row] · w[panel] over the whole of k, in one fixed order per element.
struct MatmulCall {
  WeightKind kind = WeightKind::kF32;
  PanelLayout layout;
  const uint8_t* panels = nullptr;
  int panel_count = 0;
  int rows = 0;              // <= kMaxTaskRows
  const float* x = nullptr;  // float kinds: [rows] x_stride elements apart
  int64_t x_stride = 0;
  QuantRows quant;  // other kinds: starts at the first row
  float* tile = nullptr;
};

enum class KvKind : uint8_t { kF32, kF16, kBF16 };

// Attention of `rows` consecutive rows of one sequence and `heads` query heads that share one KV head.
struct AttentionCall {
  const float* q = nullptr;  // first row, first head; heads are head_dim apart
  int64_t q_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int rows = 0;
  int heads = 0;
  int head_dim = 0;
  int64_t position = 0;            // of the first row
  const int32_t* pages = nullptr;  // page table of the sequence
  const uint8_t* kv = nullptr;     // pages, page_stride bytes apart
  int64_t page_stride = 0;
  int64_t k_offset = 0;  // bytes inside a page: K [head_dim][16] of this KV head
  int64_t v_offset = 0;  // V [16][head_dim]
  KvKind kind = KvKind::kF32;
  float scale = 1.0f;
  float softcap = 0.0f;
  int64_t window = 0;
  float* scratch = nullptr;  // attention_scratch_floats()
};
constexpr int kMaxAttentionPairs = 32;  // rows * heads of a call
// Sums of all pairs, and one page in float32.
constexpr int64_t attention_scratch_floats(int head_dim) {
  return kMaxAttentionPairs * ((head_dim + 15) / 16 * 16) + 32 * head_dim;
}

struct KernelTable {
  // out = x / sqrt(mean(x²) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  void (*add)(float* x, const float* y, int64_t n);
  void (*scale)(float* x, float factor, int64_t n);
  // x += weight * y, rounded twice
  void (*add_scaled)(float* x, float weight, const float* y, int64_t n);
  void (*softcap)(float* x, float cap, int64_t n);
  void (*round_f16)(float* x, int64_t n);
  void (*round_bf16)(float* x, int64_t n);
  // activation: 0 silu, 1 gelu (tanh), 2 gelu
  void (*gated_activation)(const float* gate, const float* up, int activation, int64_t n, float* out);
  // Rotates the pairs (i, i + half).
  void (*rope)(float* x, const float* cos, const float* sin, int64_t half);
  // Quantises one row: symmetric, scale = max|x| / 127 of 16 values. Where one is NaN or infinite, it is NaN.
  void (*quantise)(const float* x, int64_t k, QuantRows row);
  void (*matmul)(const MatmulCall& call);
  void (*to_f16)(const float* x, uint16_t* out, int64_t n);
  void (*to_bf16)(const float* x, uint16_t* out, int64_t n);
  void (*attention)(const AttentionCall& call);
  // --- vocabulary rows ---
  bool (*all_finite)(const float* x, int64_t n);
  float (*max)(const float* x, int64_t n);
  // out = exp((x - max) * factor); returns nothing: sums are the caller's
  void (*exp_shifted)(const float* x, float max, float factor, int64_t n, float* out);
  // sum of exp(x - max), in a fixed order
  double (*sum_exp)(const float* x, float max, int64_t n);
};

const KernelTable& portable_kernels();
#if defined(__x86_64__)
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
#endif

}  // namespace tessera::tensor
