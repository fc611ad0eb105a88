// Stage: one block range on one device: a model, its KV memory and its workspace. A StepPlan in, a StepResult
// out.
#pragma once

#include <memory>
#include <vector>

#include "model/model.h"
#include "tensor/backend.h"

namespace tessera::engine {

struct StageOptions {
  uint64_t kv_memory_bytes = 0;
  DType kv_dtype = DType::kF16;
  int context_length = 0;    // positions of the longest sequence
  int max_batch_tokens = 0;  // rows of one step
  int max_sequences = 0;     // no more KV is allocated than so many full contexts need
};

// One thread. Page p of KV memory holds kKvBlockTokens positions of every block of the range, block by block.
class Stage {
 public:
  // ResourceExhausted when not even one context fits; says which --kv-memory or --context would.
  static Result<std::unique_ptr<Stage>> create(std::unique_ptr<model::Model> model,
                                               std::unique_ptr<tensor::Backend> backend,
                                               const StageOptions& options);

  const model::Model& model() const { return *model_; }
  int32_t kv_pages() const { return kv_pages_; }
  // Rows of one step that may ask for logits.
  int max_logit_rows() const { return max_logit_rows_; }

  // Runs the step and waits for it. `result` keeps its memory from step to step.
  void run(const StepPlan& plan, StepResult& result);

 private:
  Stage() = default;

  std::unique_ptr<tensor::Backend> backend_;  // outlives everything made from it
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<tensor::Buffer> kv_memory_;
  std::unique_ptr<model::Workspace> workspace_;
  std::vector<tensor::KvView> kv_views_;  // [blocks of the range]
  int32_t kv_pages_ = 0;
  int max_logit_rows_ = 0;
};

}  // namespace tessera::engine
