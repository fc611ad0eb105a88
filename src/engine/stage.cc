#include "engine/stage.h"

#include <algorithm>

#include "kv/block_pool.h"

namespace tessera::engine {
namespace {

// Logits are float32 [rows, vocabulary]: large vocabularies get fewer rows a step.
constexpr int64_t kLogitBytes = int64_t{64} << 20;

// As --kv-memory takes it, exactly, in the largest unit that can say it.
std::string size_text(int64_t bytes) {
  if (bytes > 0 && bytes % (int64_t{1} << 20) == 0) return std::to_string(bytes >> 20) + "MiB";
  if (bytes > 0 && bytes % (int64_t{1} << 10) == 0) return std::to_string(bytes >> 10) + "KiB";
  return std::to_string(bytes) + "B";
}

Result<int32_t> choose_pages(int64_t page_bytes, const StageOptions& options) {
  const int64_t context_pages = kv::pages_for(options.context_length);
  const auto budget = static_cast<int64_t>(std::min<uint64_t>(options.kv_memory_bytes, INT64_MAX));
  const int64_t pages = std::min(budget / page_bytes, context_pages * options.max_sequences);
  if (pages < context_pages) {
    const int64_t fits = budget / page_bytes * kKvBlockTokens;
    std::string advice = "use --kv-memory " + size_text(context_pages * page_bytes);
    if (fits > 0) advice += " or --context " + std::to_string(fits);
    return resource_exhausted("the KV cache of one context of " + std::to_string(options.context_length) +
                              " tokens does not fit in " + size_text(budget) + ": " + advice);
  }
  return static_cast<int32_t>(std::min<int64_t>(pages, INT32_MAX));
}

}  // namespace

Result<std::unique_ptr<Stage>> Stage::create(std::unique_ptr<model::Model> model,
                                             std::unique_ptr<tensor::Backend> backend,
                                             const StageOptions& options) {
  const model::ModelSpec& spec = model->spec();
  std::unique_ptr<Stage> stage(new Stage());
  stage->backend_ = std::move(backend);
  stage->model_ = std::move(model);

  const int64_t block_bytes = stage->backend_->kv_page_bytes(spec.kv_heads, spec.head_dim, options.kv_dtype);
  const int blocks = stage->model_->range().size();
  const int64_t page_bytes = block_bytes * blocks;
  TESSERA_ASSIGN_OR_RETURN(stage->kv_pages_, choose_pages(page_bytes, options));
  TESSERA_ASSIGN_OR_RETURN(stage->kv_memory_,
                           stage->backend_->allocate(static_cast<uint64_t>(page_bytes * stage->kv_pages_)));
  auto* base = static_cast<uint8_t*>(stage->kv_memory_->data());
  for (int block = 0; block < blocks; ++block)
    stage->kv_views_.push_back(
        {base + block * block_bytes, page_bytes, options.kv_dtype, spec.kv_heads, spec.head_dim});

  if (stage->model_->is_tail()) {
    const int64_t row_bytes = int64_t{spec.vocab} * static_cast<int64_t>(sizeof(float));
    stage->max_logit_rows_ = static_cast<int>(
        std::clamp<int64_t>(kLogitBytes / std::max<int64_t>(row_bytes, 1), 1, options.max_batch_tokens));
  }
  TESSERA_ASSIGN_OR_RETURN(stage->workspace_,
                           stage->model_->make_workspace(options.max_batch_tokens, stage->max_logit_rows_));
  return stage;
}

void Stage::run(const StepPlan& plan, StepResult& result) {
  model_->enqueue(plan, kv_views_, *workspace_, result);
  backend_->wait(backend_->submit());
}

}  // namespace tessera::engine
