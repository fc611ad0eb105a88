// A model of integers for the engine's tests and bench: block b mixes a row with everything that the KV pages
// hold at the positions before it, so a wrong page, position, chunk or batch gives another token.
// toy_reference() computes the same without pages.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "model/model.h"

namespace tessera::engine::toy {

inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x7f4a7c15u);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

struct ToyOptions {
  int num_blocks = 6;
  int vocab = 997;
  int context_length = 512;
  int original_context = 0;  // as longrope: longer sessions use RoPE variant 1
  int nan_position = -1;     // the token of this position has no finite logits
  bool compute = true;       // false: rows are 0, for the bench, which measures everything else
  std::vector<TokenId> end_tokens{2};
};

constexpr int kHidden = 4;  // 16 bits of the row's number in each float

inline model::ModelSpec toy_spec(const ToyOptions& options) {
  model::ModelSpec spec;
  spec.family = "toy";
  spec.num_blocks = options.num_blocks;
  spec.hidden = kHidden;
  spec.kv_heads = 1;
  spec.head_dim = 1;
  spec.vocab = options.vocab;
  spec.context_length = options.context_length;
  spec.original_context = options.original_context;
  spec.end_tokens = options.end_tokens;
  return spec;
}

inline uint64_t embed(TokenId token, int position, int rope_variant) {
  return mix(mix(static_cast<uint64_t>(token) + 1, static_cast<uint64_t>(position)),
             static_cast<uint64_t>(rope_variant));
}

inline float score(uint64_t row, TokenId token) {
  return -static_cast<float>(mix(row, static_cast<uint64_t>(token)) % 1000) / 100;
}

inline SampledToken sample(uint64_t row, const SampleRequest& request, const ToyOptions& options) {
  SampledToken out;
  if (request.position == options.nan_position) return out;
  const auto vocab = static_cast<uint64_t>(options.vocab);
  if (request.target >= 0) {
    out.token = request.target;
    out.has_logprobs = true;
    out.logprobs.logprob = score(row, request.target);
    return out;
  }
  uint64_t x = mix(mix(row, request.params->seed), static_cast<uint64_t>(request.position));
  if (request.params->choice > 0) x = mix(x, request.params->choice);
  for (const SampleRequest::TokenCount& count : request.counts)
    x = mix(x, mix(static_cast<uint64_t>(count.token),
                   static_cast<uint64_t>(count.in_prompt * 1000 + count.in_output)));
  out.token = static_cast<TokenId>(x % vocab);
  while (std::find(request.banned.begin(), request.banned.end(), out.token) != request.banned.end())
    out.token = static_cast<TokenId>((static_cast<uint64_t>(out.token) + 1) % vocab);
  if (request.params->top_logprobs >= 0) {
    out.has_logprobs = true;
    out.logprobs.logprob = score(row, out.token);
  }
  return out;
}

// The row's number after all blocks, for every position of `tokens`.
inline std::vector<uint64_t> toy_reference(const std::vector<TokenId>& tokens, int rope_variant,
                                           const ToyOptions& options) {
  std::vector<uint64_t> rows(tokens.size());
  for (size_t p = 0; p < tokens.size(); ++p) rows[p] = embed(tokens[p], static_cast<int>(p), rope_variant);
  for (int block = 0; block < options.num_blocks; ++block) {
    uint64_t before = 0;
    for (uint64_t& row : rows) {
      before = mix(before, row);
      row = mix(mix(row, before), static_cast<uint64_t>(block));
    }
  }
  return rows;
}

class HostBuffer final : public tensor::Buffer {
 public:
  explicit HostBuffer(uint64_t bytes) : bytes_(bytes) {}
  void* data() override { return bytes_.data(); }
  uint64_t bytes() const override { return bytes_.size(); }

 private:
  std::vector<uint8_t> bytes_;
};

// Memory and tickets only: the toy model has no use for ops.
class ToyBackend final : public tensor::Backend {
 public:
  const tensor::BackendInfo& info() const override { return info_; }
  NumericsClass numerics(tensor::MatrixFormat, DType kv) const override {
    return {"toy", "toy.1", DType::kF32, DType::kF32, kv};
  }
  Result<std::unique_ptr<tensor::Buffer>> allocate(uint64_t bytes) override {
    return std::unique_ptr<tensor::Buffer>(std::make_unique<HostBuffer>(bytes));
  }
  void copy_to_device(void* device, const void* host, uint64_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void copy_to_host(void* host, const void* device, uint64_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  Result<std::unique_ptr<tensor::Matrix>> make_matrix(const tensor::MatrixSource&, tensor::MatrixFormat,
                                                      std::shared_ptr<const void>) override {
    return unsupported("the toy backend has no matrices");
  }
  int64_t kv_page_bytes(int, int, DType) const override { return kKvBlockTokens * int64_t{sizeof(uint64_t)}; }

  void embed(std::span<const TokenId>, const tensor::Matrix&, float, tensor::Tensor) override { no_op(); }
  void rms_norm(tensor::Tensor, std::span<const float>, float, tensor::Tensor) override { no_op(); }
  void matmul(tensor::Tensor, const tensor::Matrix&, std::span<const float>, tensor::Tensor) override {
    no_op();
  }
  void rope_table(std::span<const StepSequence>, const tensor::RopeParams&, tensor::Tensor) override {
    no_op();
  }
  void rope(tensor::Tensor, int, int, tensor::Tensor) override { no_op(); }
  void kv_write(tensor::Tensor, tensor::Tensor, std::span<const StepSequence>, tensor::KvView) override {
    no_op();
  }
  void attention(tensor::Tensor, tensor::KvView, std::span<const StepSequence>,
                 const tensor::AttentionParams&, tensor::Tensor) override {
    no_op();
  }
  void gated_activation(tensor::Tensor, tensor::Activation, tensor::Tensor) override { no_op(); }
  void moe(tensor::Tensor, const tensor::MoeParams&, tensor::Tensor) override { no_op(); }
  void add(tensor::Tensor, tensor::Tensor) override { no_op(); }
  void softcap(tensor::Tensor, float) override { no_op(); }
  void round_to(tensor::Tensor, DType) override { no_op(); }
  void gather_rows(tensor::Tensor, std::span<const int32_t>, tensor::Tensor) override { no_op(); }
  void copy(tensor::Tensor, tensor::Tensor) override { no_op(); }
  void sample(tensor::Tensor, std::span<const SampleRequest>, std::span<SampledToken>) override { no_op(); }
  tensor::Ticket submit() override { return ++ticket_; }
  void wait(tensor::Ticket ticket) override { TESSERA_CHECK(ticket == ticket_, "a ticket nobody gave"); }

 private:
  static void no_op() { TESSERA_CHECK(false, "the toy model calls no ops"); }
  tensor::BackendInfo info_{"toy", "toy", 1};
  tensor::Ticket ticket_ = 0;
};

class ToyWorkspace final : public model::Workspace {
 public:
  ToyWorkspace(int rows, int logit_rows) : logit_rows(logit_rows), rows_(rows) {}
  int max_rows() const override { return rows_; }
  uint64_t bytes() const override { return 0; }
  const int logit_rows;

 private:
  const int rows_;
};

class ToyModel final : public model::Model {
 public:
  ToyModel(ToyOptions options, BlockRange range)
      : options_(std::move(options)), spec_(toy_spec(options_)), range_(range) {}
  const model::ModelSpec& spec() const override { return spec_; }
  BlockRange range() const override { return range_; }
  uint64_t weight_bytes() const override { return 0; }
  const NumericsClass& numerics() const override { return numerics_; }
  Result<std::unique_ptr<model::Workspace>> make_workspace(int max_rows, int max_logit_rows) const override {
    return std::unique_ptr<model::Workspace>(std::make_unique<ToyWorkspace>(max_rows, max_logit_rows));
  }

  void enqueue(const StepPlan& plan, std::span<const tensor::KvView> kv, model::Workspace& workspace,
               StepResult& result) override {
    TESSERA_CHECK(plan.rows > 0 && plan.rows <= workspace.max_rows(), "rows of a step");
    TESSERA_CHECK(static_cast<int>(plan.samples.size()) <= static_cast<ToyWorkspace&>(workspace).logit_rows,
                  "logit rows of a step");
    rows_.resize(static_cast<size_t>(plan.rows));
    int next_row = 0;
    for (const StepSequence& sequence : plan.sequences) {
      TESSERA_CHECK(sequence.first_row == next_row, "sequences must cover the rows in order");
      next_row += sequence.rows;
      for (int i = 0; i < sequence.rows && options_.compute; ++i) run_row(plan, sequence, i, kv);
    }
    TESSERA_CHECK(next_row == plan.rows, "sequences must cover all rows");
    result.hidden.clear();
    result.sampled.clear();
    if (is_tail()) {
      for (const SampleRequest& request : plan.samples)
        result.sampled.push_back(sample(rows_[static_cast<size_t>(request.row)], request, options_));
      return;
    }
    for (uint64_t row : rows_)
      for (int i = 0; i < kHidden; ++i) result.hidden.push_back(static_cast<float>(row >> (16 * i) & 0xffff));
  }

 private:
  void run_row(const StepPlan& plan, const StepSequence& sequence, int index,
               std::span<const tensor::KvView> kv) {
    const auto row = static_cast<size_t>(sequence.first_row + index);
    const int position = sequence.start + index;
    uint64_t x = 0;
    if (is_head())
      x = embed(plan.tokens[row], position, sequence.rope_variant);
    else
      for (int i = 0; i < kHidden; ++i)
        x |= static_cast<uint64_t>(plan.hidden[row * kHidden + static_cast<size_t>(i)]) << (16 * i);
    for (int block = range_.first; block < range_.last; ++block) {
      const tensor::KvView& view = kv[static_cast<size_t>(block - range_.first)];
      slot(view, sequence, position) = x;
      uint64_t before = 0;
      for (int p = 0; p <= position; ++p) before = mix(before, slot(view, sequence, p));
      x = mix(mix(x, before), static_cast<uint64_t>(block));
    }
    rows_[row] = x;
  }

  static uint64_t& slot(const tensor::KvView& view, const StepSequence& sequence, int position) {
    const int32_t page = sequence.pages[static_cast<size_t>(position / kKvBlockTokens)];
    auto* data = static_cast<uint8_t*>(view.data) + page * view.page_stride_bytes;
    return reinterpret_cast<uint64_t*>(data)[position % kKvBlockTokens];
  }

  const ToyOptions options_;
  const model::ModelSpec spec_;
  const BlockRange range_;
  const NumericsClass numerics_{"toy", "toy.1", DType::kF32, DType::kF32, DType::kF32};
  std::vector<uint64_t> rows_;
};

// KV memory that holds so many pages of a toy of so many blocks.
inline uint64_t kv_bytes(int pages, int blocks) {
  return static_cast<uint64_t>(pages) * static_cast<uint64_t>(blocks) * kKvBlockTokens * sizeof(uint64_t);
}

}  // namespace tessera::engine::toy
