#include "weights/needed.h"

#include <set>

#include "weights/names.h"

namespace tessera::weights {
namespace {

class Collector {
 public:
  void add(const MatrixPlan& plan) { add_pieces(plan.pieces); }
  void add(const VectorPlan& plan) { add_pieces(plan.pieces); }
  void add(const std::vector<MatrixPlan>& plans) {
    for (const MatrixPlan& plan : plans) add(plan);
  }
  void add(const BlockPlan& block) {
    for (const VectorPlan* vector : {&block.attention_norm, &block.post_attention_norm, &block.mlp_norm,
                                     &block.post_mlp_norm, &block.q_norm, &block.k_norm, &block.qkv_bias,
                                     &block.output_bias, &block.gate_up_bias, &block.down_bias})
      add(*vector);
    for (const MatrixPlan* matrix : {&block.qkv, &block.output, &block.gate_up, &block.down, &block.router})
      add(*matrix);
    add(block.expert_gate_up);
    add(block.expert_down);
  }
  void add_name(std::string name) { names_.insert(std::move(name)); }
  std::vector<std::string> take() const { return {names_.begin(), names_.end()}; }

 private:
  void add_pieces(const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) names_.insert(piece.tensor->name);
  }
  std::set<std::string> names_;
};

}  // namespace

Result<std::vector<std::string>> needed_tensors(const Layout& layout, const checkpoint::Source& source,
                                                BlockRange range) {
  TESSERA_ASSIGN_OR_RETURN(RangePlan plan, plan_range(layout, source, range, tensor::MatrixFormat::kAuto));
  Collector names;
  names.add(plan.embedding);
  for (const BlockPlan& block : plan.blocks) names.add(block);
  names.add(plan.final_norm);
  names.add(plan.lm_head);
  // A tied model that stores its head as well: the two are compared at the tail, so both must be there.
  if (range.last == layout.num_blocks && layout.tied_embedding) {
    TESSERA_ASSIGN_OR_RETURN(Names known, find_names(layout.family, source));
    for (const std::string& name : {known.embedding, known.lm_head})
      if (source.find(name) != nullptr) names.add_name(name);
  }
  return names.take();
}

}  // namespace tessera::weights
