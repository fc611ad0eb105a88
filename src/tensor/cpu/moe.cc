#include "tensor/cpu/moe.h"

#include <algorithm>

namespace tessera::tensor {

namespace {

const PackedMatrix& packed(const Matrix* matrix) {
  return *static_cast<const PackedMatrix*>(matrix);
}

struct Choice {
  int32_t expert;
  float weight;
};

// Softmax over all logits in place, the k best (equals: the lower expert), ascending by expert.
void choose_experts(const KernelTable& kernels, float* logits, int64_t experts, int k, bool normalise,
                    Choice* choice) {
  const float best = kernels.max(logits, experts);
  kernels.exp_shifted(logits, best, 1.0f, experts, logits);
  float total = 0;
  for (int64_t e = 0; e < experts; ++e) total += logits[e];
  for (int64_t e = 0; e < experts; ++e) logits[e] /= total;
  float chosen_total = 0;
  for (int i = 0; i < k; ++i) {
    int32_t pick = -1;
    for (int32_t e = 0; e < experts; ++e) {
      const bool taken = std::any_of(choice, choice + i, [e](const Choice& c) { return c.expert == e; });
      if (!taken && (pick < 0 || logits[e] > logits[pick])) pick = e;
    }
    choice[i] = {pick, logits[pick]};
    chosen_total += logits[pick];
  }
  if (normalise)
    for (int i = 0; i < k; ++i) choice[i].weight /= chosen_total;
  std::sort(choice, choice + k, [](const Choice& a, const Choice& b) { return a.expert < b.expert; });
}

}  // namespace

// A slot is one (row, chosen expert); slots are sorted by expert, then by row.
struct MoeScratch::Buffers {
  int64_t rows, experts, slots, hidden, ffn, x_groups, gated_groups;  // capacity; groups 0: no int8 rows
  std::vector<float> logits;                                          // [rows, experts]
  std::vector<int32_t> expert_first;  // [experts + 1]: first slot of each expert
  std::vector<int32_t> slot_row;      // [slots]
  std::vector<int32_t> row_slot;      // [rows, k]: the row's slots in ascending expert order
  std::vector<float> row_weight;      // [rows, k]
  std::vector<float> x, gate_up, gated, down;
  QuantBuffer quant_x, quant_gated;

  bool holds(const Buffers& o) const {
    return rows >= o.rows && experts >= o.experts && slots >= o.slots && hidden >= o.hidden && ffn >= o.ffn &&
           x_groups >= o.x_groups && gated_groups >= o.gated_groups;
  }
  void allocate() {
    const auto size = [](auto& v, int64_t n) { v.resize(static_cast<size_t>(n)); };
    size(logits, rows * experts);
    size(expert_first, experts + 1);
    size(slot_row, slots);
    size(row_slot, slots);
    size(row_weight, slots);
    size(x, slots * hidden);
    size(gate_up, slots * 2 * ffn);
    size(gated, slots * ffn);
    size(down, slots * hidden);
    if (x_groups > 0) quant_x.reserve(slots, x_groups);
    if (gated_groups > 0) quant_gated.reserve(slots, gated_groups);
  }
};

// What the phases of one op share.
struct MoeScratch::Op {
  const KernelTable* kernels;
  std::shared_ptr<Buffers> scratch;
  Tensor x;
  Tensor out;
  MoeParams params;
  int64_t experts;
  int64_t hidden;
  int64_t ffn;
  int64_t slots;

  void route() const {
    Buffers& s = *scratch;
    const int k = params.experts_per_token;
    std::vector<Choice> choices(static_cast<size_t>(slots));
    std::fill_n(s.expert_first.begin(), experts + 1, 0);
    for (int64_t r = 0; r < x.rows; ++r) {
      Choice* mine = choices.data() + r * k;
      choose_experts(*kernels, s.logits.data() + r * experts, experts, k, params.normalise_top_k, mine);
      for (int i = 0; i < k; ++i) ++s.expert_first[static_cast<size_t>(mine[i].expert) + 1];
    }
    for (int64_t e = 0; e < experts; ++e)
      s.expert_first[static_cast<size_t>(e) + 1] += s.expert_first[static_cast<size_t>(e)];
    std::vector<int32_t> next(s.expert_first.begin(), s.expert_first.begin() + experts + 1);
    for (int64_t i = 0; i < slots; ++i) {
      const Choice& c = choices[static_cast<size_t>(i)];
      const int32_t slot = next[static_cast<size_t>(c.expert)]++;
      s.slot_row[static_cast<size_t>(slot)] = static_cast<int32_t>(i / k);
      s.row_slot[static_cast<size_t>(i)] = slot;
      s.row_weight[static_cast<size_t>(i)] = c.weight;
    }
  }

  void gather_slot(int64_t slot, bool as_float, bool as_quant, int64_t groups) const {
    Buffers& s = *scratch;
    const float* row = x.f32(s.slot_row[static_cast<size_t>(slot)]);
    if (as_float) std::copy(row, row + hidden, s.x.data() + slot * hidden);
    if (as_quant) kernels->quantise(row, hidden, QuantBuffer::at_row(s.quant_x.rows(groups), slot));
  }

  // One run of panels of one expert over that expert's slots.
  void expert_run(int64_t expert, const PanelRuns::Run& run, MatmulInput input, float* result,
                  int64_t columns) const {
    const int32_t first = scratch->expert_first[static_cast<size_t>(expert)];
    const int32_t rows = scratch->expert_first[static_cast<size_t>(expert) + 1] - first;
    if (rows == 0) return;
    if (input.x != nullptr) input.x += first * input.x_stride;
    if (input.quant.q != nullptr) input.quant = QuantBuffer::at_row(input.quant, first);
    matmul_run(*kernels, run, input, rows, nullptr, result + first * columns, columns);
  }

  void combine(int64_t row) const {
    const Buffers& s = *scratch;
    const int k = params.experts_per_token;
    float* sum = out.f32(row);
    std::fill(sum, sum + hidden, 0.0f);
    for (int64_t i = row * k; i < (row + 1) * k; ++i)
      kernels->add_scaled(sum, s.row_weight[static_cast<size_t>(i)],
                          s.down.data() + s.row_slot[static_cast<size_t>(i)] * hidden, hidden);
  }
};

void MoeScratch::record(StepRecorder& recorder, const KernelTable& kernels, int threads, Tensor x,
                        const MoeParams& params, Tensor out,
                        const std::function<void(Tensor, const PackedMatrix&, Tensor)>& matmul) {
  const auto experts = static_cast<int64_t>(params.gate_up.size());
  TESSERA_CHECK(params.router != nullptr && experts > 0 && params.router->n() == experts &&
                static_cast<int64_t>(params.down.size()) == experts);
  TESSERA_CHECK(params.experts_per_token >= 1 && params.experts_per_token <= experts);
  const int64_t slots = x.rows * params.experts_per_token;
  const int64_t hidden = x.cols;
  const int64_t ffn = params.gate_up[0]->n() / 2;
  bool x_float = false, x_quant = false, gated_float = false, gated_quant = false;
  for (int64_t e = 0; e < experts; ++e) {
    const PackedMatrix& up = packed(params.gate_up[static_cast<size_t>(e)]);
    const PackedMatrix& down = packed(params.down[static_cast<size_t>(e)]);
    TESSERA_CHECK(up.k() == hidden && up.n() == 2 * ffn && down.k() == ffn && down.n() == hidden);
    x_float |= up.needs_float();
    x_quant |= up.needs_quant();
    gated_float |= down.needs_float();
    gated_quant |= down.needs_quant();
  }
  const int64_t x_groups = packed(params.gate_up[0]).groups();
  const int64_t gated_groups = packed(params.down[0]).groups();
  Buffers wanted{x.rows,
                 experts,
                 slots,
                 hidden,
                 ffn,
                 x_quant ? x_groups : 0,
                 gated_quant ? gated_groups : 0,
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {},
                 {}};
  if (buffers_ == nullptr || !buffers_->holds(wanted)) {
    wanted.allocate();
    buffers_ = std::make_shared<Buffers>(std::move(wanted));
  }
  const std::shared_ptr<Buffers> buffers = buffers_;
  const auto op = std::make_shared<Op>(Op{&kernels, buffers, x, out, params, experts, hidden, ffn, slots});

  matmul(x, packed(params.router), {buffers->logits.data(), DType::kF32, x.rows, experts, experts});
  recorder.phase(1, [op](int, int) { op->route(); });
  recorder.phase(static_cast<int>(slots),
                 [=](int slot, int) { op->gather_slot(slot, x_float, x_quant, x_groups); });

  // Experts have equal shapes, but their kinds may differ; a run that an expert does not have is skipped.
  const auto record_experts = [&](const std::vector<const Matrix*>& matrices, MatmulInput input,
                                  float* result, int64_t columns) {
    std::vector<PanelRuns> runs;
    int64_t most = 0;
    for (const Matrix* matrix : matrices) {
      runs.emplace_back(packed(matrix), run_width(packed(matrix), threads));
      most = std::max(most, runs.back().count);
    }
    recorder.phase(static_cast<int>(experts * most), [=, runs = std::move(runs)](int task, int) {
      const PanelRuns& mine = runs[static_cast<size_t>(task / most)];
      if (task % most < mine.count) op->expert_run(task / most, mine.at(task % most), input, result, columns);
    });
  };
  record_experts(params.gate_up,
                 {buffers->x.data(), hidden, x_quant ? buffers->quant_x.rows(x_groups) : QuantRows{}},
                 buffers->gate_up.data(), 2 * ffn);
  recorder.phase(static_cast<int>(slots), [=](int slot, int) {
    const float* gate = buffers->gate_up.data() + slot * 2 * ffn;
    float* gated = buffers->gated.data() + slot * ffn;
    op->kernels->gated_activation(gate, gate + ffn, static_cast<int>(op->params.activation), ffn, gated);
    if (gated_quant)
      op->kernels->quantise(gated, ffn, QuantBuffer::at_row(buffers->quant_gated.rows(gated_groups), slot));
  });
  record_experts(
      params.down,
      {buffers->gated.data(), ffn, gated_quant ? buffers->quant_gated.rows(gated_groups) : QuantRows{}},
      buffers->down.data(), hidden);
  recorder.rows(x.rows, {row_access(out)}, [op](int64_t row, int) { op->combine(row); });
}

}  // namespace tessera::tensor
