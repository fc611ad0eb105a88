// Runs token ids straight through the block ranges of a model, one sequence, no scheduler: what `logits`
// needs.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "app/open_model.h"

namespace tessera::app {

class StageChain {
 public:
  static Result<std::unique_ptr<StageChain>> load(const OpenedModel& opened, const ModelOptions& options,
                                                  int max_rows);

  // Logits of every position of `tokens`, in chunks: `rows` gets [count, vocab] each time, in order.
  Status run(std::span<const TokenId> tokens, const std::function<Status(std::span<const float> rows)>& rows);

 private:
  struct Stage {
    std::unique_ptr<tensor::Backend> backend;
    std::unique_ptr<model::Model> model;
    std::unique_ptr<model::Workspace> workspace;
    std::unique_ptr<tensor::Buffer> kv;
    std::vector<tensor::KvView> views;
  };
  StageChain() = default;
  // KV for `tokens` positions on every stage.
  Status reserve(size_t tokens);
  Result<std::vector<float>> step(std::span<const TokenId> tokens, int start, int rope_variant);

  DType kv_dtype_ = DType::kF32;
  int max_rows_ = 0;
  std::vector<Stage> stages_;
  std::vector<int32_t> pages_;  // identity page table
};

}  // namespace tessera::app
