#include "model/model.h"

#include <algorithm>

#include "model/blocks.h"
#include "model/workspace.h"
#include "weights/load.h"
#include "weights/plan.h"

namespace tessera::model {
namespace {

using tensor::MatrixFormat;
using tensor::Tensor;

NumericsClass numerics_of(const checkpoint::Source& source, const tensor::Backend& backend,
                          const LoadOptions& options) {
  const auto& tensors = source.tensors();
  const bool quantised = std::any_of(tensors.begin(), tensors.end(),
                                     [](const checkpoint::TensorInfo& t) { return is_quantised(t.dtype); });
  const MatrixFormat format =
      options.format == MatrixFormat::kAuto && quantised ? MatrixFormat::kInt8 : options.format;
  NumericsClass numerics = backend.numerics(format, options.kv_dtype);
  if (options.exact_products) numerics.kernels += "+exact";
  return numerics;
}

Status check_range(const ModelSpec& spec, BlockRange range) {
  if (range.first >= 0 && range.first < range.last && range.last <= spec.num_blocks) return {};
  return invalid_argument("blocks " + std::to_string(range.first) + ":" + std::to_string(range.last) +
                          " of a model of " + std::to_string(spec.num_blocks));
}

class LoadedModel final : public Model {
 public:
  LoadedModel(ModelSpec spec, BlockRange range, tensor::Backend& backend, weights::RangeWeights weights,
              NumericsClass numerics)
      : spec_(std::move(spec)),
        range_(range),
        backend_(backend),
        weights_(std::move(weights)),
        numerics_(std::move(numerics)) {
    for (const weights::BlockWeights& block : weights_.blocks) {
      tensor::MoeParams moe;
      moe.router = block.router.get();
      for (const auto& expert : block.expert_gate_up) moe.gate_up.push_back(expert.get());
      for (const auto& expert : block.expert_down) moe.down.push_back(expert.get());
      moe.experts_per_token = spec_.experts_per_token;
      moe.normalise_top_k = spec_.normalise_top_k;
      moe.activation = spec_.activation;
      moe_.push_back(std::move(moe));
    }
  }

  const ModelSpec& spec() const override { return spec_; }
  BlockRange range() const override { return range_; }
  uint64_t weight_bytes() const override { return weights_.bytes; }
  const NumericsClass& numerics() const override { return numerics_; }

  Result<std::unique_ptr<Workspace>> make_workspace(int max_rows, int max_logit_rows) const override {
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<StepWorkspace> workspace,
        StepWorkspace::make(spec_, is_tail() ? std::max(1, max_logit_rows) : 0, max_rows, backend_));
    return std::unique_ptr<Workspace>(std::move(workspace));
  }

  void enqueue(const StepPlan& plan, std::span<const tensor::KvView> kv, Workspace& workspace,
               StepResult& result) override {
    auto& space = static_cast<StepWorkspace&>(workspace);
    TESSERA_CHECK(plan.rows > 0 && plan.rows <= space.max_rows());
    TESSERA_CHECK(static_cast<int>(kv.size()) == range_.size());
    const Activations a = space.activations(plan.rows);
    enqueue_input(plan, a);
    enqueue_rope_tables(plan, a);
    for (int i = 0; i < range_.size(); ++i) {
      const auto index = static_cast<size_t>(i);
      const BlockContext context{spec_, spec_.blocks[static_cast<size_t>(range_.first + i)],
                                 weights_.blocks[index], moe_[index], backend_};
      enqueue_attention(context, plan.sequences, kv[index], a);
      enqueue_mlp(context, a);
      backend_.round_to(a.x, numerics_.residual);
    }
    if (is_tail()) {
      enqueue_tail(plan, a, space, result);
    } else {
      result.hidden.resize(static_cast<size_t>(int64_t{plan.rows} * spec_.hidden));
      backend_.copy(a.x, host_rows(result.hidden.data(), plan.rows, spec_.hidden));
    }
  }

 private:
  static Tensor host_rows(const float* data, int64_t rows, int64_t cols) {
    return {const_cast<float*>(data), DType::kF32, rows, cols, cols};
  }

  void enqueue_input(const StepPlan& plan, const Activations& a) {
    if (is_head()) {
      TESSERA_CHECK(static_cast<int32_t>(plan.tokens.size()) == plan.rows);
      backend_.embed(plan.tokens, *weights_.embedding, spec_.embedding_scale, a.x);
      return;
    }
    TESSERA_CHECK(static_cast<int64_t>(plan.hidden.size()) == int64_t{plan.rows} * spec_.hidden);
    backend_.copy(host_rows(plan.hidden.data(), plan.rows, spec_.hidden), a.x);
  }

  void enqueue_rope_tables(const StepPlan& plan, const Activations& a) {
    for (size_t i = 0; i < spec_.ropes.size(); ++i) {
      const bool used =
          std::any_of(spec_.blocks.begin() + range_.first, spec_.blocks.begin() + range_.last,
                      [i](const BlockSpec& block) { return static_cast<size_t>(block.rope) == i; });
      const RopeSpec& rope = spec_.ropes[i];
      if (used)
        backend_.rope_table(plan.sequences, {rope.inv_freq, rope.attention_factor, rope.rotary_dim},
                            a.rope_tables[i]);
    }
  }

  // Logits of rows `rows`, in the workspace.
  Tensor enqueue_logits(const Activations& a, std::span<const int32_t> rows, StepWorkspace& space) {
    const auto count = static_cast<int64_t>(rows.size());
    const Tensor gathered = space.gathered(count);
    const Tensor logits = space.logits(count);
    backend_.gather_rows(a.x, rows, gathered);
    backend_.rms_norm(gathered, weights_.final_norm, spec_.norm_eps, gathered);
    backend_.matmul(gathered, *weights_.lm_head, {}, logits);
    if (spec_.final_softcap > 0) backend_.softcap(logits, spec_.final_softcap);
    return logits;
  }

  void enqueue_tail(const StepPlan& plan, const Activations& a, StepWorkspace& space, StepResult& result) {
    result.hidden.clear();
    const int64_t vocab = spec_.vocab;
    const auto part = static_cast<size_t>(space.max_logit_rows());
    if (plan.all_logits) {
      result.logits.resize(static_cast<size_t>(plan.rows * vocab));
      const std::span<const int32_t> rows = space.every_row(plan.rows);
      for (size_t first = 0; first < rows.size(); first += part) {
        const auto chunk = rows.subspan(first, std::min(part, rows.size() - first));
        const Tensor logits = enqueue_logits(a, chunk, space);
        backend_.copy(logits, host_rows(result.logits.data() + static_cast<int64_t>(first) * vocab,
                                        logits.rows, vocab));
      }
    }
    result.sampled.assign(plan.samples.size(), {});
    const std::span<const int32_t> rows = space.sampled_rows(plan.samples);
    for (size_t first = 0; first < rows.size(); first += part) {
      const size_t count = std::min(part, rows.size() - first);
      const Tensor logits = enqueue_logits(a, rows.subspan(first, count), space);
      backend_.sample(logits, std::span(plan.samples).subspan(first, count),
                      std::span(result.sampled).subspan(first, count));
    }
  }

  const ModelSpec spec_;
  const BlockRange range_;
  tensor::Backend& backend_;
  const weights::RangeWeights weights_;
  const NumericsClass numerics_;
  std::vector<tensor::MoeParams> moe_;  // [blocks of the range]
};

}  // namespace

Result<std::unique_ptr<Model>> Model::load(const ModelSpec& spec,
                                           std::shared_ptr<const checkpoint::Source> source, BlockRange range,
                                           tensor::Backend& backend, const LoadOptions& options) {
  TESSERA_RETURN_IF_ERROR(check_range(spec, range));
  TESSERA_ASSIGN_OR_RETURN(weights::RangePlan plan,
                           weights::plan_range(spec, *source, range, options.format));
  plan.exact_products = options.exact_products;
  NumericsClass numerics = numerics_of(*source, backend, options);
  TESSERA_ASSIGN_OR_RETURN(weights::RangeWeights loaded,
                           weights::load_range(plan, std::move(source), backend, options.progress));
  return std::unique_ptr<Model>(
      std::make_unique<LoadedModel>(spec, range, backend, std::move(loaded), std::move(numerics)));
}

Result<uint64_t> estimate_weight_bytes(const ModelSpec& spec, const checkpoint::Source& source,
                                       BlockRange range, tensor::MatrixFormat format) {
  TESSERA_RETURN_IF_ERROR(check_range(spec, range));
  TESSERA_ASSIGN_OR_RETURN(const weights::RangePlan plan, weights::plan_range(spec, source, range, format));
  return weights::packed_bytes(plan);
}

}  // namespace tessera::model
