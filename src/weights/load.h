// Loading the weights of a block range onto a backend.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "weights/plan.h"

namespace tessera::weights {

using tensor::Matrix;

// Absent parts are null or empty. Vectors are float32 in host memory, as the ops take them.
struct BlockWeights {
  std::vector<float> attention_norm, post_attention_norm, mlp_norm, post_mlp_norm, q_norm, k_norm;
  std::unique_ptr<Matrix> qkv, output;
  std::vector<float> qkv_bias, output_bias;
  std::unique_ptr<Matrix> gate_up, down;
  std::vector<float> gate_up_bias, down_bias;
  std::unique_ptr<Matrix> router;
  std::vector<std::unique_ptr<Matrix>> expert_gate_up, expert_down;
};

struct RangeWeights {
  std::shared_ptr<const Matrix> embedding;  // at block 0
  std::vector<BlockWeights> blocks;
  std::vector<float> final_norm;          // at the last block
  std::shared_ptr<const Matrix> lm_head;  // may be the embedding
  uint64_t bytes = 0;                     // held by all of these
};

// `progress` is called after each tensor with the stored bytes done and in all.
Result<RangeWeights> load_range(const RangePlan& plan, std::shared_ptr<const checkpoint::Source> source,
                                tensor::Backend& backend,
                                const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace tessera::weights
