#include "weights/plan.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "weights/names.h"

namespace tessera::weights {
namespace {

using checkpoint::TensorInfo;
using tensor::MatrixFormat;

std::string shape_text(std::span<const uint64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string with_expert(std::string_view pattern, int expert) {
  const size_t at = pattern.find("{}");
  if (at == std::string_view::npos) return std::string(pattern);
  return std::string(pattern.substr(0, at)) + std::to_string(expert) + std::string(pattern.substr(at + 2));
}

bool is_known_type(DType dtype) {
  return is_quantised(dtype) || dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

uint64_t stored_bytes(const Piece& piece) {
  const uint64_t elements = piece.tensor->elements();
  if (elements == 0) return 0;
  uint64_t rows = 1;  // all dimensions but the innermost
  for (size_t i = 0; i + 1 < piece.tensor->shape.size(); ++i) rows *= piece.tensor->shape[i];
  if (piece.tensor->shape.size() == 1) rows = piece.tensor->shape[0];
  return piece.tensor->bytes / rows * piece.rows;
}

class Planner {
 public:
  Planner(const Layout& layout, const checkpoint::Source& source, Names names, MatrixFormat format)
      : layout_(layout), source_(source), names_(std::move(names)), format_(format) {}

  Result<RangePlan> plan(BlockRange range) {
    RangePlan plan;
    const bool head = range.first == 0;
    const bool tail = range.last == layout_.num_blocks;
    if (head) TESSERA_RETURN_IF_ERROR(plan_embedding(plan));
    for (int block = range.first; block < range.last; ++block) {
      TESSERA_ASSIGN_OR_RETURN(BlockPlan part, plan_block(block));
      plan.blocks.push_back(std::move(part));
    }
    if (tail) TESSERA_RETURN_IF_ERROR(plan_tail(head, plan));
    TESSERA_RETURN_IF_ERROR(check_leftovers(range));
    plan.stored_bytes = stored_;
    return plan;
  }

 private:
  uint64_t dim(int value) const { return static_cast<uint64_t>(value); }

  Result<const TensorInfo*> require(const std::string& name, std::span<const uint64_t> shape) {
    const TensorInfo* tensor = source_.find(name);
    if (tensor == nullptr)
      return corrupt("tensor " + name + " is missing (expected " + shape_text(shape) + ")");
    if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end()))
      return corrupt("tensor " + name + " is " + shape_text(tensor->shape) + ", expected " +
                     shape_text(shape));
    if (!is_known_type(tensor->dtype))
      return unsupported("tensor " + name + " is of type " + std::string(dtype_info(tensor->dtype).name) +
                         ", which no kernel here multiplies");
    used_.insert(tensor);
    return tensor;
  }

  void add(std::vector<Piece>& pieces, Piece piece) {
    stored_ += stored_bytes(piece);
    pieces.push_back(piece);
  }

  Status add_rows(MatrixPlan& plan, const std::string& name, uint64_t rows, uint64_t k,
                  bool interleaved = false) {
    const uint64_t shape[] = {rows, k};
    TESSERA_ASSIGN_OR_RETURN(const TensorInfo* tensor, require(name, shape));
    add(plan.pieces, {tensor, 0, rows, interleaved ? layout_.head_dim : 0});
    return {};
  }
  MatrixPlan matrix(uint64_t k) const { return {{}, k, format_}; }

  Result<MatrixPlan> one_matrix(const std::string& name, uint64_t rows, uint64_t k) {
    MatrixPlan plan = matrix(k);
    TESSERA_RETURN_IF_ERROR(add_rows(plan, name, rows, k));
    return plan;
  }

  Status add_values(VectorPlan& plan, const std::string& name, uint64_t size, bool interleaved = false) {
    const uint64_t shape[] = {size};
    TESSERA_ASSIGN_OR_RETURN(const TensorInfo* tensor, require(name, shape));
    add(plan.pieces, {tensor, 0, size, interleaved ? layout_.head_dim : 0});
    return {};
  }
  Result<VectorPlan> norm(const std::string& name, uint64_t size) {
    VectorPlan plan;
    plan.plus_one = layout_.norm_plus_one;
    TESSERA_RETURN_IF_ERROR(add_values(plan, name, size));
    return plan;
  }

  // q|k|v, from three tensors or slices of one.
  Status plan_qkv(int block, BlockPlan& plan) {
    const BlockNames& n = names_.block;
    const uint64_t sizes[] = {dim(layout_.heads) * dim(layout_.head_dim),
                              dim(layout_.kv_heads) * dim(layout_.head_dim),
                              dim(layout_.kv_heads) * dim(layout_.head_dim)};
    const uint64_t all = sizes[0] + sizes[1] + sizes[2];
    const bool pairs = layout_.rope_rows_interleaved;
    plan.qkv = matrix(dim(layout_.hidden));
    const std::string fused = n.qkv.empty() ? "" : names_.block_tensor(block, n.qkv);
    if (!fused.empty() && source_.find(fused) != nullptr) {
      const uint64_t shape[] = {all, plan.qkv.k};
      TESSERA_ASSIGN_OR_RETURN(const TensorInfo* tensor, require(fused, shape));
      uint64_t first = 0;
      for (int i = 0; i < 3; ++i) {
        add(plan.qkv.pieces, {tensor, first, sizes[i], pairs && i < 2 ? layout_.head_dim : 0});
        first += sizes[i];
      }
      if (layout_.attention_bias)
        TESSERA_RETURN_IF_ERROR(add_values(plan.qkv_bias, names_.block_tensor(block, n.qkv, ".bias"), all));
      return {};
    }
    const std::string_view parts[] = {n.q, n.k, n.v};
    for (int i = 0; i < 3; ++i) {
      TESSERA_RETURN_IF_ERROR(
          add_rows(plan.qkv, names_.block_tensor(block, parts[i]), sizes[i], plan.qkv.k, pairs && i < 2));
      if (layout_.attention_bias)
        TESSERA_RETURN_IF_ERROR(add_values(plan.qkv_bias, names_.block_tensor(block, parts[i], ".bias"),
                                           sizes[i], pairs && i < 2));
    }
    return {};
  }

  Status plan_attention(int block, BlockPlan& plan) {
    const BlockNames& n = names_.block;
    const uint64_t hidden = dim(layout_.hidden);
    TESSERA_RETURN_IF_ERROR(plan_qkv(block, plan));
    if (layout_.qk_norm) {
      TESSERA_ASSIGN_OR_RETURN(plan.q_norm,
                               norm(names_.block_tensor(block, n.q_norm), dim(layout_.head_dim)));
      TESSERA_ASSIGN_OR_RETURN(plan.k_norm,
                               norm(names_.block_tensor(block, n.k_norm), dim(layout_.head_dim)));
    }
    TESSERA_ASSIGN_OR_RETURN(plan.output, one_matrix(names_.block_tensor(block, n.output), hidden,
                                                     dim(layout_.heads) * dim(layout_.head_dim)));
    if (layout_.output_bias)
      TESSERA_RETURN_IF_ERROR(
          add_values(plan.output_bias, names_.block_tensor(block, n.output, ".bias"), hidden));
    return {};
  }

  Status plan_mlp(int block, BlockPlan& plan) {
    const BlockNames& n = names_.block;
    const uint64_t hidden = dim(layout_.hidden);
    const uint64_t ffn = dim(layout_.ffn);
    plan.gate_up = matrix(hidden);
    if (!n.gate_up.empty()) {
      TESSERA_RETURN_IF_ERROR(add_rows(plan.gate_up, names_.block_tensor(block, n.gate_up), 2 * ffn, hidden));
      if (layout_.mlp_bias)
        TESSERA_RETURN_IF_ERROR(
            add_values(plan.gate_up_bias, names_.block_tensor(block, n.gate_up, ".bias"), 2 * ffn));
    } else {
      for (std::string_view part : {n.gate, n.up}) {
        TESSERA_RETURN_IF_ERROR(add_rows(plan.gate_up, names_.block_tensor(block, part), ffn, hidden));
        if (layout_.mlp_bias)
          TESSERA_RETURN_IF_ERROR(
              add_values(plan.gate_up_bias, names_.block_tensor(block, part, ".bias"), ffn));
      }
    }
    TESSERA_ASSIGN_OR_RETURN(plan.down, one_matrix(names_.block_tensor(block, n.down), hidden, ffn));
    if (layout_.mlp_bias)
      TESSERA_RETURN_IF_ERROR(
          add_values(plan.down_bias, names_.block_tensor(block, n.down, ".bias"), hidden));
    return {};
  }

  // Expert `expert`'s rows of one role, from its own tensor or the stack of all.
  Status add_expert(MatrixPlan& plan, int block, int expert, std::string_view stacked,
                    std::string_view single, uint64_t rows) {
    const std::string stack = stacked.empty() ? "" : names_.block_tensor(block, stacked);
    if (stack.empty() || source_.find(stack) == nullptr)
      return add_rows(plan, names_.block_tensor(block, with_expert(single, expert)), rows, plan.k);
    const uint64_t shape[] = {dim(layout_.experts), rows, plan.k};
    TESSERA_ASSIGN_OR_RETURN(const TensorInfo* tensor, require(stack, shape));
    add(plan.pieces, {tensor, dim(expert) * rows, rows, 0});
    return {};
  }

  Status plan_moe(int block, BlockPlan& plan) {
    const BlockNames& n = names_.block;
    const uint64_t hidden = dim(layout_.hidden);
    const uint64_t ffn = dim(layout_.expert_ffn);
    TESSERA_ASSIGN_OR_RETURN(plan.router,
                             one_matrix(names_.block_tensor(block, n.router), dim(layout_.experts), hidden));
    // A small matrix that decides which experts run: never quantised at load.
    if (format_ != MatrixFormat::kF32) plan.router.format = MatrixFormat::kAuto;
    for (int e = 0; e < layout_.experts; ++e) {
      MatrixPlan gate_up = matrix(hidden);
      MatrixPlan down = matrix(ffn);
      TESSERA_RETURN_IF_ERROR(add_expert(gate_up, block, e, n.stacked_gate, n.expert_gate, ffn));
      TESSERA_RETURN_IF_ERROR(add_expert(gate_up, block, e, n.stacked_up, n.expert_up, ffn));
      TESSERA_RETURN_IF_ERROR(add_expert(down, block, e, n.stacked_down, n.expert_down, hidden));
      plan.expert_gate_up.push_back(std::move(gate_up));
      plan.expert_down.push_back(std::move(down));
    }
    return {};
  }

  Result<BlockPlan> plan_block(int block) {
    const BlockNames& n = names_.block;
    const uint64_t hidden = dim(layout_.hidden);
    BlockPlan plan;
    TESSERA_ASSIGN_OR_RETURN(plan.attention_norm, norm(names_.block_tensor(block, n.attention_norm), hidden));
    TESSERA_RETURN_IF_ERROR(plan_attention(block, plan));
    TESSERA_ASSIGN_OR_RETURN(plan.mlp_norm, norm(names_.block_tensor(block, n.mlp_norm), hidden));
    if (layout_.post_norms) {
      TESSERA_ASSIGN_OR_RETURN(plan.post_attention_norm,
                               norm(names_.block_tensor(block, n.post_attention_norm), hidden));
      TESSERA_ASSIGN_OR_RETURN(plan.post_mlp_norm, norm(names_.block_tensor(block, n.post_mlp_norm), hidden));
    }
    if (layout_.moe[static_cast<size_t>(block)]) {
      TESSERA_RETURN_IF_ERROR(plan_moe(block, plan));
    } else {
      TESSERA_RETURN_IF_ERROR(plan_mlp(block, plan));
    }
    return plan;
  }

  Result<MatrixPlan> vocabulary_matrix(const std::string& name) {
    TESSERA_ASSIGN_OR_RETURN(MatrixPlan plan, one_matrix(name, dim(layout_.vocab), dim(layout_.hidden)));
    // 4 bits are too few for embedding and head: quantise them to 8.
    if (format_ == MatrixFormat::kInt4) plan.format = MatrixFormat::kInt8;
    return plan;
  }

  Status plan_embedding(RangePlan& plan) {
    TESSERA_ASSIGN_OR_RETURN(plan.embedding, vocabulary_matrix(names_.embedding));
    return {};
  }

  Status plan_tail(bool has_embedding, RangePlan& plan) {
    TESSERA_ASSIGN_OR_RETURN(plan.final_norm, norm(names_.final_norm, dim(layout_.hidden)));
    if (!layout_.tied_embedding) {
      TESSERA_ASSIGN_OR_RETURN(plan.lm_head, vocabulary_matrix(names_.lm_head));
      return {};
    }
    if (const TensorInfo* head = source_.find(names_.lm_head)) {
      const TensorInfo* embedding = source_.find(names_.embedding);
      if (embedding == nullptr || embedding->dtype != head->dtype || embedding->shape != head->shape ||
          !std::equal(head->data().begin(), head->data().end(), embedding->data().begin()))
        return unsupported("tensor " + names_.lm_head +
                           " differs from the embedding although the configuration ties them");
    }
    plan.lm_head_is_embedding = has_embedding;
    if (has_embedding) return {};
    TESSERA_ASSIGN_OR_RETURN(plan.lm_head, vocabulary_matrix(names_.embedding));
    return {};
  }

  // The block that a tensor belongs to, or -1.
  int block_of(std::string_view name) const {
    if (!name.starts_with(names_.block_prefix)) return -1;
    name.remove_prefix(names_.block_prefix.size());
    int block = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), block);
    return error == std::errc() && end != name.data() + name.size() && *end == '.' ? block : -1;
  }

  Status check_leftovers(BlockRange range) const {
    const bool ends = range.first == 0 || range.last == layout_.num_blocks;
    for (const TensorInfo& tensor : source_.tensors()) {
      if (used_.contains(&tensor) || is_ignorable(tensor.name)) continue;
      const int block = block_of(tensor.name);
      const bool hosted = block >= 0 ? block >= range.first && block < range.last : ends;
      const bool known = tensor.name == names_.embedding || tensor.name == names_.final_norm ||
                         tensor.name == names_.lm_head;
      if (hosted && !known)
        return unsupported("tensor " + tensor.name + " is not known for " + layout_.family +
                           " with this configuration; ignoring it would change the result");
    }
    return {};
  }

  const Layout& layout_;
  const checkpoint::Source& source_;
  const Names names_;
  const MatrixFormat format_;
  std::set<const TensorInfo*> used_;
  uint64_t stored_ = 0;
};

// Bits of memory per weight once packed: codes, scales and minima (tensor/cpu/packed_matrix.h).
double packed_bits(DType dtype, MatrixFormat format) {
  if (format == MatrixFormat::kF32) return 32;
  const bool four_bits = dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ4_K;
  if (format == MatrixFormat::kInt4 && !four_bits) return 5;
  if (format == MatrixFormat::kInt8 && !is_quantised(dtype)) return 8.5;
  switch (dtype) {
    case DType::kF16:
    case DType::kBF16:
      return 16;
    case DType::kQ4_0:
      return 4.5;
    case DType::kQ4_1:
      return 5;
    case DType::kQ4_K:
      return 4.625;
    case DType::kQ5_0:
      return 5.5;
    case DType::kQ5_1:
      return 6;
    case DType::kQ5_K:
      return 5.625;
    case DType::kQ6_K:
      return 6.5625;
    case DType::kQ8_0:
      return 8.5;
    default:
      return 32;
  }
}

}  // namespace

std::vector<int32_t> Piece::row_order() const {
  std::vector<int32_t> order;
  if (interleaved_head_dim <= 0) return order;
  const uint64_t head_dim = static_cast<uint64_t>(interleaved_head_dim);
  order.reserve(rows);
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t head = row / head_dim * head_dim;
    const uint64_t i = row % head_dim % (head_dim / 2);
    const uint64_t half = row % head_dim / (head_dim / 2);
    order.push_back(static_cast<int32_t>(head + 2 * i + half));
  }
  return order;
}

Result<RangePlan> plan_range(const Layout& layout, const checkpoint::Source& source, BlockRange range,
                             MatrixFormat format) {
  TESSERA_CHECK(range.first >= 0 && range.first < range.last && range.last <= layout.num_blocks);
  TESSERA_CHECK(static_cast<int>(layout.moe.size()) == layout.num_blocks);
  TESSERA_ASSIGN_OR_RETURN(Names names, find_names(layout.family, source));
  return Planner(layout, source, std::move(names), format).plan(range);
}

Result<uint64_t> packed_bytes(const RangePlan& plan) {
  double bytes = 0;
  const auto add_matrix = [&bytes](const MatrixPlan& m) {
    for (const Piece& piece : m.pieces)
      bytes += static_cast<double>(piece.rows) * static_cast<double>(m.k) *
               packed_bits(piece.tensor->dtype, m.format) / 8;
  };
  const auto add_vector = [&bytes](const VectorPlan& v) {
    for (const Piece& piece : v.pieces) bytes += 4.0 * static_cast<double>(piece.rows);
  };
  add_matrix(plan.embedding);
  add_matrix(plan.lm_head);
  add_vector(plan.final_norm);
  for (const BlockPlan& b : plan.blocks) {
    for (const MatrixPlan* m : {&b.qkv, &b.output, &b.gate_up, &b.down, &b.router}) add_matrix(*m);
    for (const MatrixPlan& m : b.expert_gate_up) add_matrix(m);
    for (const MatrixPlan& m : b.expert_down) add_matrix(m);
    for (const VectorPlan* v :
         {&b.attention_norm, &b.post_attention_norm, &b.mlp_norm, &b.post_mlp_norm, &b.q_norm, &b.k_norm,
          &b.qkv_bias, &b.output_bias, &b.gate_up_bias, &b.down_bias})
      add_vector(*v);
  }
  return static_cast<uint64_t>(bytes);
}

}  // namespace tessera::weights
