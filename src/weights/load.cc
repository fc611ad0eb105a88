#include "weights/load.h"

#include "tensor/cpu/cpu_backend.h"

namespace tessera::weights {
namespace {

class Loader {
 public:
  Loader(std::shared_ptr<const checkpoint::Source> source, tensor::Backend& backend,
         const std::function<void(uint64_t, uint64_t)>& progress, const RangePlan& plan)
      : source_(std::move(source)),
        backend_(backend),
        progress_(progress),
        total_(plan.stored_bytes),
        exact_products_(plan.exact_products) {}

  uint64_t held_bytes() const { return held_; }

  Result<std::unique_ptr<Matrix>> matrix(const MatrixPlan& plan) {
    if (plan.pieces.empty()) return std::unique_ptr<Matrix>();
    tensor::MatrixSource rows;
    rows.k = static_cast<int64_t>(plan.k);
    rows.exact_products = exact_products_;
    std::vector<std::vector<int32_t>> orders;
    for (const Piece& piece : plan.pieces) orders.push_back(piece.row_order());
    for (size_t i = 0; i < plan.pieces.size(); ++i) {
      const Piece& piece = plan.pieces[i];
      TESSERA_ASSIGN_OR_RETURN(const Bytes bytes, place(piece, plan.k));
      piece.tensor->file->will_need(piece.tensor->offset + bytes.offset, bytes.size);
      rows.pieces.push_back({piece.tensor->dtype, piece.tensor->data().data() + bytes.offset,
                             static_cast<int64_t>(piece.rows), orders[i]});
    }
    auto made = backend_.make_matrix(rows, plan.format, source_);
    if (!made.ok()) return made.status().with_context("tensor " + plan.pieces.front().tensor->name);
    held_ += (*made)->bytes();
    for (const Piece& piece : plan.pieces) TESSERA_RETURN_IF_ERROR(release(piece, plan.k));
    return made;
  }

  Result<std::vector<float>> vector(const VectorPlan& plan) {
    std::vector<float> values;
    for (const Piece& piece : plan.pieces) {
      std::vector<float> stored(piece.rows);
      const Status status = tensor::dequantise(piece.tensor->dtype, piece.tensor->data(), stored);
      if (!status.ok()) return status.with_context("tensor " + piece.tensor->name);
      const std::vector<int32_t> order = piece.row_order();
      for (size_t i = 0; i < stored.size(); ++i) {
        const float value = stored[order.empty() ? i : static_cast<size_t>(order[i])];
        values.push_back(plan.plus_one ? 1.0f + value : value);
      }
      TESSERA_RETURN_IF_ERROR(release(piece, 1));
    }
    held_ += values.size() * sizeof(float);
    return values;
  }

 private:
  struct Bytes {
    uint64_t offset = 0;  // from the tensor's start
    uint64_t size = 0;
  };
  Result<Bytes> place(const Piece& piece, uint64_t k) const {
    Bytes bytes;
    TESSERA_ASSIGN_OR_RETURN(bytes.offset, dtype_bytes(piece.tensor->dtype, piece.first_row * k));
    TESSERA_ASSIGN_OR_RETURN(bytes.size, dtype_bytes(piece.tensor->dtype, piece.rows * k));
    TESSERA_CHECK(bytes.offset + bytes.size <= piece.tensor->bytes);
    return bytes;
  }
  // Packed: the mapped pages are not needed again, and would count as this process's memory.
  Status release(const Piece& piece, uint64_t k) {
    TESSERA_ASSIGN_OR_RETURN(const Bytes bytes, place(piece, k));
    piece.tensor->file->dont_need(piece.tensor->offset + bytes.offset, bytes.size);
    done_ += bytes.size;
    if (progress_) progress_(done_, total_);
    return {};
  }

  const std::shared_ptr<const checkpoint::Source> source_;
  tensor::Backend& backend_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  const uint64_t total_;
  const bool exact_products_;
  uint64_t done_ = 0;
  uint64_t held_ = 0;
};

Result<BlockWeights> load_block(Loader& loader, const BlockPlan& plan) {
  BlockWeights block;
  TESSERA_ASSIGN_OR_RETURN(block.attention_norm, loader.vector(plan.attention_norm));
  TESSERA_ASSIGN_OR_RETURN(block.post_attention_norm, loader.vector(plan.post_attention_norm));
  TESSERA_ASSIGN_OR_RETURN(block.mlp_norm, loader.vector(plan.mlp_norm));
  TESSERA_ASSIGN_OR_RETURN(block.post_mlp_norm, loader.vector(plan.post_mlp_norm));
  TESSERA_ASSIGN_OR_RETURN(block.q_norm, loader.vector(plan.q_norm));
  TESSERA_ASSIGN_OR_RETURN(block.k_norm, loader.vector(plan.k_norm));
  TESSERA_ASSIGN_OR_RETURN(block.qkv, loader.matrix(plan.qkv));
  TESSERA_ASSIGN_OR_RETURN(block.qkv_bias, loader.vector(plan.qkv_bias));
  TESSERA_ASSIGN_OR_RETURN(block.output, loader.matrix(plan.output));
  TESSERA_ASSIGN_OR_RETURN(block.output_bias, loader.vector(plan.output_bias));
  TESSERA_ASSIGN_OR_RETURN(block.gate_up, loader.matrix(plan.gate_up));
  TESSERA_ASSIGN_OR_RETURN(block.gate_up_bias, loader.vector(plan.gate_up_bias));
  TESSERA_ASSIGN_OR_RETURN(block.down, loader.matrix(plan.down));
  TESSERA_ASSIGN_OR_RETURN(block.down_bias, loader.vector(plan.down_bias));
  TESSERA_ASSIGN_OR_RETURN(block.router, loader.matrix(plan.router));
  for (const MatrixPlan& expert : plan.expert_gate_up) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix, loader.matrix(expert));
    block.expert_gate_up.push_back(std::move(matrix));
  }
  for (const MatrixPlan& expert : plan.expert_down) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<Matrix> matrix, loader.matrix(expert));
    block.expert_down.push_back(std::move(matrix));
  }
  return block;
}

}  // namespace

Result<RangeWeights> load_range(const RangePlan& plan, std::shared_ptr<const checkpoint::Source> source,
                                tensor::Backend& backend,
                                const std::function<void(uint64_t done, uint64_t total)>& progress) {
  Loader loader(std::move(source), backend, progress, plan);
  RangeWeights weights;
  TESSERA_ASSIGN_OR_RETURN(weights.embedding, loader.matrix(plan.embedding));
  for (const BlockPlan& block : plan.blocks) {
    TESSERA_ASSIGN_OR_RETURN(BlockWeights loaded, load_block(loader, block));
    weights.blocks.push_back(std::move(loaded));
  }
  TESSERA_ASSIGN_OR_RETURN(weights.final_norm, loader.vector(plan.final_norm));
  if (plan.lm_head_is_embedding) {
    weights.lm_head = weights.embedding;
  } else {
    TESSERA_ASSIGN_OR_RETURN(weights.lm_head, loader.matrix(plan.lm_head));
  }
  weights.bytes = loader.held_bytes();
  return weights;
}

}  // namespace tessera::weights
