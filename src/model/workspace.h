// The memory of a step: one buffer, cut into the activations that the blocks need.
#pragma once

#include <memory>
#include <vector>

#include "model/blocks.h"
#include "model/model.h"

namespace tessera::model {

class StepWorkspace final : public Workspace {
 public:
  // max_logit_rows = 0: no logits (not the tail).
  static Result<std::unique_ptr<StepWorkspace>> make(const ModelSpec& spec, int max_logit_rows, int max_rows,
                                                     tensor::Backend& backend);

  int max_rows() const override { return max_rows_; }
  uint64_t bytes() const override { return memory_->bytes(); }
  int max_logit_rows() const { return max_logit_rows_; }

  // Views of the first `rows` rows.
  Activations activations(int64_t rows) const;
  tensor::Tensor gathered(int64_t rows) const { return gathered_.slice_rows(0, rows); }
  tensor::Tensor logits(int64_t rows) const { return logits_.slice_rows(0, rows); }

  // Row numbers for gather_rows, valid until the next step.
  std::span<const int32_t> every_row(int32_t rows);
  std::span<const int32_t> sampled_rows(std::span<const SampleRequest> requests);

 private:
  StepWorkspace() = default;

  int max_rows_ = 0;
  int max_logit_rows_ = 0;
  std::unique_ptr<tensor::Buffer> memory_;
  Activations full_;
  tensor::Tensor gathered_;  // [max_logit_rows, hidden]
  tensor::Tensor logits_;    // [max_logit_rows, vocab]
  std::vector<int32_t> every_row_;
  std::vector<int32_t> sampled_rows_;
};

}  // namespace tessera::model
