#include "app/stage_chain.h"

#include <numeric>

namespace tessera::app {

Result<std::unique_ptr<StageChain>> StageChain::load(const OpenedModel& opened, const ModelOptions& options,
                                                     int max_rows) {
  std::unique_ptr<StageChain> chain(new StageChain);
  chain->kv_dtype_ = opened.kv_dtype;
  chain->max_rows_ = max_rows;
  TESSERA_ASSIGN_OR_RETURN(tensor::Isa isa, chosen_isa(options));
  auto pool = tensor::make_thread_pool(options.threads);
  for (BlockRange range : opened.ranges) {
    Stage stage;
    stage.backend = tensor::make_cpu_backend(pool, {.isa = isa});
    TESSERA_ASSIGN_OR_RETURN(stage.model, load_range(opened, range, *stage.backend));
    TESSERA_ASSIGN_OR_RETURN(stage.workspace, stage.model->make_workspace(max_rows, max_rows));
    chain->stages_.push_back(std::move(stage));
  }
  return chain;
}

Status StageChain::reserve(size_t tokens) {
  const size_t pages = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  if (pages <= pages_.size()) return {};
  pages_.resize(pages);
  std::iota(pages_.begin(), pages_.end(), 0);
  for (Stage& stage : stages_) {
    const model::ModelSpec& spec = stage.model->spec();
    const int64_t page = stage.backend->kv_page_bytes(spec.kv_heads, spec.head_dim, kv_dtype_);
    const int64_t stride = page * stage.model->range().size();
    stage.kv.reset();
    TESSERA_ASSIGN_OR_RETURN(stage.kv, stage.backend->allocate(static_cast<uint64_t>(stride) * pages));
    stage.views.clear();
    for (int block = 0; block < stage.model->range().size(); ++block)
      stage.views.push_back({static_cast<uint8_t*>(stage.kv->data()) + block * page, stride, kv_dtype_,
                             spec.kv_heads, spec.head_dim});
  }
  return {};
}

Result<std::vector<float>> StageChain::step(std::span<const TokenId> tokens, int start, int rope_variant) {
  StepPlan plan;
  plan.rows = static_cast<int32_t>(tokens.size());
  plan.tokens.assign(tokens.begin(), tokens.end());
  plan.sequences.push_back({1, 1, 0, plan.rows, start, rope_variant, pages_});
  plan.all_logits = true;
  StepResult result;
  for (Stage& stage : stages_) {
    StepResult next;
    plan.hidden = result.hidden;
    stage.model->enqueue(plan, stage.views, *stage.workspace, next);
    stage.backend->wait(stage.backend->submit());
    result = std::move(next);
    plan.tokens.clear();
  }
  return std::move(result.logits);
}

Status StageChain::run(std::span<const TokenId> tokens,
                       const std::function<Status(std::span<const float>)>& rows) {
  const int variant = stages_.front().model->spec().rope_variant(static_cast<int>(tokens.size()));
  TESSERA_RETURN_IF_ERROR(reserve(tokens.size()));
  for (size_t start = 0; start < tokens.size(); start += static_cast<size_t>(max_rows_)) {
    const auto chunk = tokens.subspan(start, std::min(tokens.size() - start, static_cast<size_t>(max_rows_)));
    TESSERA_ASSIGN_OR_RETURN(std::vector<float> logits, step(chunk, static_cast<int>(start), variant));
    TESSERA_RETURN_IF_ERROR(rows(logits));
  }
  return {};
}

}  // namespace tessera::app
