// Which tensors a block range needs, checked against the shapes that the model expects, before any is read.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/source.h"
#include "tensor/backend.h"
#include "weights/layout.h"

namespace tessera::weights {

// Rows [first_row, first_row + rows) of a tensor seen as a matrix (elements, for a vector).
struct Piece {
  const checkpoint::TensorInfo* tensor = nullptr;
  uint64_t first_row = 0;
  uint64_t rows = 0;
  int interleaved_head_dim = 0;  // > 0: stored in rotary pair order inside each head of so many rows

  // Output row i is stored row row_order()[i]; empty when they are stored in order.
  std::vector<int32_t> row_order() const;
};

// Absent parts of a block have no pieces.
struct MatrixPlan {
  std::vector<Piece> pieces;
  uint64_t k = 0;
  tensor::MatrixFormat format = tensor::MatrixFormat::kAuto;
};
struct VectorPlan {
  std::vector<Piece> pieces;
  bool plus_one = false;
};

struct BlockPlan {
  VectorPlan attention_norm, post_attention_norm, mlp_norm, post_mlp_norm, q_norm, k_norm;
  MatrixPlan qkv, output;
  VectorPlan qkv_bias, output_bias;
  MatrixPlan gate_up, down;
  VectorPlan gate_up_bias, down_bias;
  MatrixPlan router;
  std::vector<MatrixPlan> expert_gate_up, expert_down;  // [experts]
};

struct RangePlan {
  MatrixPlan embedding;  // at block 0
  std::vector<BlockPlan> blocks;
  VectorPlan final_norm;  // at the last block
  MatrixPlan lm_head;
  bool lm_head_is_embedding = false;  // both in this range and the same matrix: lm_head has no pieces
  uint64_t stored_bytes = 0;          // of all pieces, in the files
  bool exact_products = false;        // of every matrix: see tensor::MatrixSource
};

// Corrupt for a missing or wrongly shaped tensor, Unsupported for a tensor of the range that would change the
// result and is not known; both name it. Reads no weight, unless a tied model also stores a head: the two
// must be equal.
Result<RangePlan> plan_range(const Layout& layout, const checkpoint::Source& source, BlockRange range,
                             tensor::MatrixFormat format);

// Bytes on the device once packed.
Result<uint64_t> packed_bytes(const RangePlan& plan);

}  // namespace tessera::weights
