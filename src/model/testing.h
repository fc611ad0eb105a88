// For tests: a model cut into block ranges, run one step at a time without an engine.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/source.h"
#include "model/model.h"
#include "tensor/cpu/cpu_backend.h"

namespace tessera::model::testing {

inline std::filesystem::path parity_models() {
  return std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/parity/models";
}

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) {
    ADD_FAILURE() << result.status().to_string();
    throw std::runtime_error(result.status().to_string());  // ends the test
  }
  return std::move(result).value();
}

// The tensors of one reference file.
class Reference {
 public:
  explicit Reference(const std::filesystem::path& path)
      : tensors_(must(checkpoint::read_safetensors(path))) {}
  std::vector<float> floats(const std::string& name) const { return values<float>(name); }
  std::vector<TokenId> tokens(const std::string& name) const {
    const auto wide = values<int64_t>(name);
    return {wide.begin(), wide.end()};
  }

 private:
  template <typename T>
  std::vector<T> values(const std::string& name) const {
    for (const checkpoint::TensorInfo& tensor : tensors_) {
      if (tensor.name != name) continue;
      std::vector<T> out(tensor.bytes / sizeof(T));
      std::memcpy(out.data(), tensor.data().data(), tensor.bytes);
      return out;
    }
    ADD_FAILURE() << "no tensor " << name;
    throw std::runtime_error("no tensor " + name);
  }
  std::vector<checkpoint::TensorInfo> tensors_;
};

struct RunnerOptions {
  std::vector<BlockRange> ranges;  // empty: one piece
  tensor::MatrixFormat format = tensor::MatrixFormat::kF32;
  DType kv_dtype = DType::kF32;
  int threads = 2;
  int max_rows = 64;
  int max_logit_rows = 64;
  int max_sequences = 2;
  int max_length = 128;
};

struct Part {
  int sequence = 0;
  std::span<const TokenId> tokens;
  int start = 0;
};

class Runner {
 public:
  Runner(const std::filesystem::path& path, RunnerOptions options)
      : options_(std::move(options)),
        source_(must(checkpoint::open_source(path))),
        spec_(must(read_spec(source_->config(), source_->generation_config()))) {
    if (options_.ranges.empty()) options_.ranges = {{0, spec_.num_blocks}};
    const auto pool = tensor::make_thread_pool(options_.threads);
    const int pages = (options_.max_length + kKvBlockTokens - 1) / kKvBlockTokens;
    for (int s = 0; s < options_.max_sequences; ++s) {
      pages_.emplace_back(pages);
      // not in order, so that a kernel that ignores the table fails
      for (int i = 0; i < pages; ++i) pages_.back()[static_cast<size_t>(i)] = (s + 1) * pages - 1 - i;
    }
    for (BlockRange range : options_.ranges) {
      Stage stage;
      stage.backend = tensor::make_cpu_backend(pool);
      LoadOptions load;
      load.format = options_.format;
      load.kv_dtype = options_.kv_dtype;
      stage.model = must(Model::load(spec_, source_, range, *stage.backend, load));
      stage.workspace = must(stage.model->make_workspace(options_.max_rows, options_.max_logit_rows));
      const int64_t page = stage.backend->kv_page_bytes(spec_.kv_heads, spec_.head_dim, options_.kv_dtype);
      const int64_t stride = page * range.size();
      stage.kv =
          must(stage.backend->allocate(static_cast<uint64_t>(stride * pages * options_.max_sequences)));
      for (int b = 0; b < range.size(); ++b)
        stage.views.push_back({static_cast<uint8_t*>(stage.kv->data()) + b * page, stride, options_.kv_dtype,
                               spec_.kv_heads, spec_.head_dim});
      stages_.push_back(std::move(stage));
    }
  }

  const ModelSpec& spec() const { return spec_; }
  const checkpoint::Source& source() const { return *source_; }
  const Model& model(size_t stage = 0) const { return *stages_[stage].model; }

  // One batch through all ranges: logits [rows, vocab]. Also keeps what each range handed on.
  std::vector<float> step(std::span<const Part> parts, int rope_variant = 0) {
    StepPlan plan;
    plan.all_logits = true;
    return run(std::move(plan), parts, rope_variant).logits;
  }
  std::vector<float> step(std::span<const TokenId> tokens, int start, int rope_variant = 0) {
    const Part part{0, tokens, start};
    return step(std::span(&part, 1), rope_variant);
  }
  StepResult run(StepPlan plan, std::span<const Part> parts, int rope_variant = 0) {
    for (const Part& part : parts) {
      const auto rows = static_cast<int32_t>(part.tokens.size());
      plan.tokens.insert(plan.tokens.end(), part.tokens.begin(), part.tokens.end());
      plan.sequences.push_back({static_cast<SessionId>(part.sequence), 1, plan.rows, rows, part.start,
                                rope_variant, pages_[static_cast<size_t>(part.sequence)]});
      plan.rows += rows;
    }
    StepResult result;
    hidden_.clear();
    for (Stage& stage : stages_) {
      StepResult next;
      plan.hidden = result.hidden;
      stage.model->enqueue(plan, stage.views, *stage.workspace, next);
      stage.backend->wait(stage.backend->submit());
      result = std::move(next);
      if (!result.hidden.empty()) hidden_.push_back(result.hidden);
      plan.tokens.clear();
    }
    return result;
  }
  // [ranges - 1]: input of each range but the first, of the last step.
  const std::vector<std::vector<float>>& hidden() const { return hidden_; }

  // Whole prompt in chunks of `chunk`.
  std::vector<float> prefill(std::span<const TokenId> tokens, size_t chunk, int rope_variant = 0) {
    std::vector<float> all;
    for (size_t first = 0; first < tokens.size(); first += chunk) {
      const auto part = tokens.subspan(first, std::min(chunk, tokens.size() - first));
      const auto logits = step(part, static_cast<int>(first), rope_variant);
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

 private:
  struct Stage {
    std::unique_ptr<tensor::Backend> backend;
    std::unique_ptr<Model> model;
    std::unique_ptr<Workspace> workspace;
    std::unique_ptr<tensor::Buffer> kv;
    std::vector<tensor::KvView> views;
  };

  RunnerOptions options_;
  std::shared_ptr<const checkpoint::Source> source_;
  ModelSpec spec_;
  std::vector<std::vector<int32_t>> pages_;  // per sequence
  std::vector<Stage> stages_;
  std::vector<std::vector<float>> hidden_;
};

inline float max_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (!(difference <= worst)) worst = difference;  // a NaN sticks out
  }
  return worst;
}

inline TokenId argmax(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace tessera::model::testing
