#include "model/workspace.h"

#include <algorithm>
#include <numeric>

namespace tessera::model {
namespace {

constexpr int64_t kRowAlign = 64;  // floats: rows begin on a boundary that every backend is happy with

}  // namespace

Result<std::unique_ptr<StepWorkspace>> StepWorkspace::make(const ModelSpec& spec, int max_logit_rows,
                                                           int max_rows, tensor::Backend& backend) {
  if (max_rows < 1) return invalid_argument("a workspace of no rows");
  std::unique_ptr<StepWorkspace> space(new StepWorkspace);
  space->max_rows_ = max_rows;
  space->max_logit_rows_ = std::clamp(max_logit_rows, 0, max_rows);

  struct Area {
    tensor::Tensor* tensor;
    int64_t rows;
    int64_t cols;
  };
  const int64_t heads = int64_t{spec.heads} * spec.head_dim;
  const int64_t kv = int64_t{spec.kv_heads} * spec.head_dim;
  const bool dense = std::find(spec.moe.begin(), spec.moe.end(), false) != spec.moe.end();
  const int64_t ffn = dense ? spec.ffn : 0;
  Activations& a = space->full_;
  a.rope_tables.resize(spec.ropes.size());
  std::vector<Area> areas = {{&a.x, max_rows, spec.hidden},
                             {&a.normed, max_rows, spec.hidden},
                             {&a.qkv, max_rows, heads + 2 * kv},
                             {&a.heads, max_rows, heads},
                             {&a.gate_up, max_rows, 2 * ffn},
                             {&a.gated, max_rows, ffn},
                             {&a.out, max_rows, spec.hidden},
                             {&space->gathered_, space->max_logit_rows_, spec.hidden},
                             {&space->logits_, space->max_logit_rows_, spec.vocab}};
  for (size_t i = 0; i < spec.ropes.size(); ++i)
    areas.push_back({&a.rope_tables[i], max_rows, spec.ropes[i].rotary_dim});

  const auto stride = [](const Area& area) { return (area.cols + kRowAlign - 1) / kRowAlign * kRowAlign; };
  int64_t floats = 0;
  for (const Area& area : areas) floats += area.rows * stride(area);
  TESSERA_ASSIGN_OR_RETURN(space->memory_, backend.allocate(static_cast<uint64_t>(floats) * sizeof(float)));
  auto* next = static_cast<uint8_t*>(space->memory_->data());
  for (const Area& area : areas) {
    *area.tensor = {next, DType::kF32, area.rows, area.cols, stride(area)};
    next += static_cast<size_t>(area.rows * stride(area)) * sizeof(float);
  }
  space->every_row_.resize(static_cast<size_t>(max_rows));
  std::iota(space->every_row_.begin(), space->every_row_.end(), 0);
  return space;
}

Activations StepWorkspace::activations(int64_t rows) const {
  Activations a = full_;
  for (tensor::Tensor* t : {&a.x, &a.normed, &a.qkv, &a.heads, &a.gate_up, &a.gated, &a.out})
    *t = t->slice_rows(0, rows);
  for (tensor::Tensor& t : a.rope_tables) t = t.slice_rows(0, rows);
  return a;
}

std::span<const int32_t> StepWorkspace::every_row(int32_t rows) {
  return std::span(every_row_).first(static_cast<size_t>(rows));
}

std::span<const int32_t> StepWorkspace::sampled_rows(std::span<const SampleRequest> requests) {
  sampled_rows_.clear();
  for (const SampleRequest& request : requests) sampled_rows_.push_back(request.row);
  return sampled_rows_;
}

}  // namespace tessera::model
