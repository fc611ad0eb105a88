// Backend: the whole op surface between a model and a device.
//
// Ops *enqueue*: nothing has run, and no result may be read, until wait(submit()). Host arrays handed to an
// op (ids, positions, page tables, sample requests) must stay valid until then. The CPU backend records the
// ops of a step and runs them with one wake-up of its thread pool; CUDA captures them as a graph.
//
// Order of arithmetic (invariant I1): every output element is computed in one fixed order over its reduction
// axis, whatever the number of rows, threads or lanes. Shapes are checked here once (TESSERA_CHECK: they are
// our own bugs). One thread at a time per Backend object.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/step.h"
#include "core/types.h"
#include "tensor/tensor.h"

namespace tessera::tensor {

// How a weight matrix is kept and multiplied.
enum class MatrixFormat : uint8_t {
  kAuto,  // as stored: quantised types stay quantised (activations are quantised to int8 per group), 16-bit
          // stays 16-bit
  kF32,   // widened to float32, float32 products: the reference path
  kInt8,  // float weights quantised at load: symmetric, groups of 32; stored quantised types stay as they are
  kInt4,  // likewise to 4-bit codes with scale and minimum; stored 4-bit types stay, wider ones are
          // requantised
};

// A weight [n, k] given as row pieces in their stored type; pieces are concatenated along n (q|k|v, gate|up).
struct MatrixPiece {
  DType dtype = DType::kF32;
  const uint8_t* data = nullptr;  // rows of k elements, contiguous
  int64_t rows = 0;
  std::span<const int32_t> row_order;  // optional: output row i is stored row row_order[i]
};
struct MatrixSource {
  std::vector<MatrixPiece> pieces;
  int64_t k = 0;
  // Quantise as the format says, then keep the values as float32 and multiply in float32: the exact path of
  // the same stored weights, which the quantised kernels are held to.
  bool exact_products = false;
};

// A weight packed for this backend; immutable.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int64_t n() const = 0;
  virtual int64_t k() const = 0;
  virtual uint64_t bytes() const = 0;           // device memory held
  virtual std::string_view format() const = 0;  // "f32", "bf16", "q8", "q4m", … for logs and the parity table
};

// The K and V pages of one transformer block. Layout is the backend's own (it is part of the KV identity);
// `page_bytes` apart, first K then V in each page.
struct KvView {
  void* data = nullptr;
  int64_t page_stride_bytes = 0;
  DType dtype = DType::kF32;  // F32, F16 or BF16
  int kv_heads = 0;
  int head_dim = 0;
};

struct AttentionParams {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  // 0 = none; else scores = softcap * tanh(scores / softcap)
  int window = 0;        // 0 = none; else a query at p sees keys in (p - window, p]
};

enum class Activation : uint8_t { kSilu, kGeluTanh, kGelu };

struct RopeParams {
  std::span<const float>
      inv_freq;  // [variants, rotary_dim / 2], device-independent host memory owned by the model
  std::span<const float> attention_factor;  // [variants]: multiplies cos and sin (yarn, longrope)
  int rotary_dim = 0;  // leading dims of each head that rotate; pairs are (i, i + rotary_dim / 2)
};

struct MoeParams {
  const Matrix* router = nullptr;      // [experts, hidden]
  std::vector<const Matrix*> gate_up;  // per expert [2 ffn, hidden]: gate rows first
  std::vector<const Matrix*> down;     // per expert [hidden, ffn]
  int experts_per_token = 0;
  bool normalise_top_k = true;  // weights of the chosen experts sum to 1
  Activation activation = Activation::kSilu;
};

struct BackendInfo {
  std::string name;         // "cpu"
  std::string description;  // "CPU, AVX2, 2 threads"
  int threads = 1;
};

using Ticket = uint64_t;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const BackendInfo& info() const = 0;
  // Class of results for weights kept in `format` with KV in `kv`. kAuto stands for weights stored as floats:
  // name stored quantised weights kInt8.
  virtual NumericsClass numerics(MatrixFormat format, DType kv) const = 0;

  // --- memory ---
  virtual Result<std::unique_ptr<Buffer>> allocate(uint64_t bytes) = 0;  // zero-filled; ResourceExhausted
  // Synchronous copies between host and device memory.
  virtual void copy_to_device(void* device, const void* host, uint64_t bytes) = 0;
  virtual void copy_to_host(void* host, const void* device, uint64_t bytes) = 0;

  // --- weights --- (source memory is no longer needed when it returns, unless the format keeps a view: then
  // `keep_alive` is held by the matrix)
  virtual Result<std::unique_ptr<Matrix>> make_matrix(const MatrixSource& source, MatrixFormat format,
                                                      std::shared_ptr<const void> keep_alive) = 0;
  // Bytes of a KV page (K and V, kKvBlockTokens positions) of one block.
  virtual int64_t kv_page_bytes(int kv_heads, int head_dim, DType dtype) const = 0;

  // --- ops ---
  // out[r, :] = table[ids[r], :] * scale
  virtual void embed(std::span<const TokenId> ids, const Matrix& table, float scale, Tensor out) = 0;
  // out[r, :] = x[r, :] / sqrt(mean(x^2) + eps) * weight, per group of `weight.size()` columns (q/k norms:
  // groups are heads)
  virtual void rms_norm(Tensor x, std::span<const float> weight, float eps, Tensor out) = 0;
  // out = x · wᵀ (+ bias): x [rows, k], out [rows, n]
  virtual void matmul(Tensor x, const Matrix& w, std::span<const float> bias, Tensor out) = 0;
  // table[r] = cos and sin of every pair at positions of the sequences' rows: [rows, rotary_dim], cos first
  virtual void rope_table(std::span<const StepSequence> sequences, const RopeParams& params,
                          Tensor table) = 0;
  // Rotates heads of x [rows, heads * head_dim] in place.
  virtual void rope(Tensor x, int head_dim, int rotary_dim, Tensor table) = 0;
  // Writes k, v [rows, kv_heads * head_dim] into the sequences' pages at their positions.
  virtual void kv_write(Tensor k, Tensor v, std::span<const StepSequence> sequences, KvView kv) = 0;
  // out [rows, heads * head_dim]: causal attention of each row over its sequence's pages, keys in position
  // order.
  virtual void attention(Tensor q, KvView kv, std::span<const StepSequence> sequences,
                         const AttentionParams& params, Tensor out) = 0;
  // out[r, i] = act(gate_up[r, i]) * gate_up[r, ffn + i]
  virtual void gated_activation(Tensor gate_up, Activation activation, Tensor out) = 0;
  // Mixture of experts: softmax over all router logits, top-k, weighted sum of the chosen experts' gated
  // MLPs, summed in ascending expert order.
  virtual void moe(Tensor x, const MoeParams& params, Tensor out) = 0;
  // x += y
  virtual void add(Tensor x, Tensor y) = 0;
  // x = cap * tanh(x / cap)
  virtual void softcap(Tensor x, float cap) = 0;
  // Rounds the residual stream to `dtype` and back at a block boundary (no-op for F32).
  virtual void round_to(Tensor x, DType dtype) = 0;
  // out[i, :] = x[rows[i], :]
  virtual void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) = 0;
  // out = x, same shape (either may be host memory on every backend)
  virtual void copy(Tensor x, Tensor out) = 0;
  // Samples or scores one token per request; logits row i belongs to requests[i]. `out` must stay valid until
  // wait(). Token -1: the logits are not finite, or nothing is allowed.
  virtual void sample(Tensor logits, std::span<const SampleRequest> requests,
                      std::span<SampledToken> out) = 0;

  // --- execution ---
  virtual Ticket submit() = 0;
  virtual void wait(Ticket ticket) = 0;
};

}  // namespace tessera::tensor
