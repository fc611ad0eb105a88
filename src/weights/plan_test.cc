#include "weights/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tensor/cpu/cpu_backend.h"
#include "weights/load.h"

namespace tessera::weights {
namespace {

using checkpoint::TensorInfo;
using tensor::MatrixFormat;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A checkpoint in memory whose tensors hold no values: planning must not need them.
class FakeSource final : public checkpoint::Source {
 public:
  explicit FakeSource(bool gguf = false) : gguf_(gguf) {}
  void add(const std::string& name, std::vector<uint64_t> shape, DType dtype = DType::kF32) {
    TensorInfo tensor;
    tensor.name = name;
    tensor.dtype = dtype;
    tensor.bytes = checkpoint::tensor_bytes(dtype, shape).value();
    tensor.shape = std::move(shape);
    tensors_.push_back(std::move(tensor));
  }
  void remove(const std::string& name) {
    std::erase_if(tensors_, [&name](const TensorInfo& t) { return t.name == name; });
  }
  TensorInfo& at(const std::string& name) {
    return *std::find_if(tensors_.begin(), tensors_.end(),
                         [&name](const TensorInfo& t) { return t.name == name; });
  }

  const TensorInfo* find(std::string_view name) const override {
    for (const TensorInfo& t : tensors_)
      if (t.name == name) return &t;
    return nullptr;
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const Json& config() const override { return none_; }
  const Json& generation_config() const override { return none_; }
  bool is_gguf() const override { return gguf_; }
  const checkpoint::GgufFile* gguf() const override { return nullptr; }
  const std::filesystem::path& path() const override { return path_; }
  uint64_t file_bytes() const override { return 0; }

 private:
  const bool gguf_;
  std::vector<TensorInfo> tensors_;
  const Json none_ = Json::object();
  const std::filesystem::path path_;
};

Layout small_layout() {
  Layout layout;
  layout.family = "llama";
  layout.num_blocks = 2;
  layout.hidden = 32;
  layout.heads = 4;
  layout.kv_heads = 2;
  layout.head_dim = 8;
  layout.ffn = 64;
  layout.vocab = 96;
  layout.moe = {false, false};
  return layout;
}

FakeSource small_llama() {
  FakeSource source;
  source.add("model.embed_tokens.weight", {96, 32});
  source.add("lm_head.weight", {96, 32});
  source.add("model.norm.weight", {32});
  for (const std::string block : {"model.layers.0.", "model.layers.1."}) {
    source.add(block + "input_layernorm.weight", {32});
    source.add(block + "post_attention_layernorm.weight", {32});
    source.add(block + "self_attn.q_proj.weight", {32, 32});
    source.add(block + "self_attn.k_proj.weight", {16, 32});
    source.add(block + "self_attn.v_proj.weight", {16, 32});
    source.add(block + "self_attn.o_proj.weight", {32, 32});
    source.add(block + "mlp.gate_proj.weight", {64, 32});
    source.add(block + "mlp.up_proj.weight", {64, 32});
    source.add(block + "mlp.down_proj.weight", {32, 64});
  }
  return source;
}

void expect_refused(const Layout& layout, const FakeSource& source, const std::vector<std::string>& parts) {
  const auto plan = plan_range(layout, source, {0, 2}, MatrixFormat::kAuto);
  ASSERT_FALSE(plan.ok());
  for (const std::string& part : parts) EXPECT_THAT(plan.status().message(), HasSubstr(part));
}

TEST(PlanRange, NamesAMissingTensor) {
  FakeSource source = small_llama();
  source.remove("model.layers.1.self_attn.k_proj.weight");
  expect_refused(small_layout(), source, {"model.layers.1.self_attn.k_proj.weight", "missing", "[16, 32]"});
}

TEST(PlanRange, NamesAWrongShapeWithBothShapes) {
  FakeSource source = small_llama();
  source.at("model.layers.0.mlp.down_proj.weight").shape = {32, 65};
  expect_refused(small_layout(), source, {"model.layers.0.mlp.down_proj.weight", "[32, 65]", "[32, 64]"});
}

TEST(PlanRange, NamesATypeWithoutKernels) {
  FakeSource source = small_llama();
  source.at("model.layers.0.mlp.up_proj.weight").dtype = DType::kF8E4M3;
  expect_refused(small_layout(), source, {"model.layers.0.mlp.up_proj.weight", "F8_E4M3"});
}

TEST(PlanRange, RefusesATensorThatTheFamilyDoesNotKnow) {
  for (const char* name : {"model.layers.1.self_attn.q_proj.bias", "model.layers.0.self_attn.q_norm.weight",
                           "lm_head.bias", "model.norm.bias"}) {
    FakeSource source = small_llama();
    source.add(name, {32});
    expect_refused(small_layout(), source, {name});
  }
}

TEST(PlanRange, IgnoresWhatNoResultDependsOn) {
  FakeSource source = small_llama();
  source.add("model.layers.0.self_attn.rotary_emb.inv_freq", {4});
  source.add("vision_tower.layers.0.weight", {4});
  EXPECT_TRUE(plan_range(small_layout(), source, {0, 2}, MatrixFormat::kAuto).ok());
}

TEST(PlanRange, NeedsOnlyItsOwnTensors) {
  FakeSource source = small_llama();
  for (const char* name : {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"})
    source.remove(name);
  source.add("model.layers.0.self_attn.q_proj.bias", {32});  // of a block hosted elsewhere
  const auto plan = plan_range(small_layout(), source, {1, 2}, MatrixFormat::kAuto);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_TRUE(plan->embedding.pieces.empty());
  EXPECT_EQ(plan->blocks.size(), 1u);
  EXPECT_EQ(plan->lm_head.pieces.size(), 1u);
}

TEST(PlanRange, TiedHeadIsTheEmbeddingAndSharedWhenBothAreHere) {
  FakeSource source = small_llama();
  source.remove("lm_head.weight");
  Layout layout = small_layout();
  layout.tied_embedding = true;
  const auto whole = plan_range(layout, source, {0, 2}, MatrixFormat::kAuto);
  ASSERT_TRUE(whole.ok());
  EXPECT_TRUE(whole->lm_head_is_embedding);
  EXPECT_TRUE(whole->lm_head.pieces.empty());
  const auto tail = plan_range(layout, source, {1, 2}, MatrixFormat::kAuto);
  ASSERT_TRUE(tail.ok());
  EXPECT_EQ(tail->lm_head.pieces[0].tensor->name, "model.embed_tokens.weight");
}

TEST(PlanRange, FourBitWeightsKeepAnEightBitVocabularyAndAnExactRouter) {
  Layout layout = small_layout();
  layout.family = "mixtral";
  layout.experts = 2;
  layout.expert_ffn = 64;
  layout.moe = {true, true};
  FakeSource source = small_llama();
  for (const std::string block : {"model.layers.0.", "model.layers.1."}) {
    for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"})
      source.remove(block + part);
    source.add(block + "block_sparse_moe.gate.weight", {2, 32});
    for (const std::string expert : {"0", "1"}) {
      source.add(block + "block_sparse_moe.experts." + expert + ".w1.weight", {64, 32});
      source.add(block + "block_sparse_moe.experts." + expert + ".w3.weight", {64, 32});
      source.add(block + "block_sparse_moe.experts." + expert + ".w2.weight", {32, 64});
    }
  }
  const auto plan = plan_range(layout, source, {0, 2}, MatrixFormat::kInt4);
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_EQ(plan->embedding.format, MatrixFormat::kInt8);
  EXPECT_EQ(plan->blocks[0].router.format, MatrixFormat::kAuto);
  EXPECT_EQ(plan->blocks[0].expert_down[1].format, MatrixFormat::kInt4);
  EXPECT_EQ(plan->blocks[1].expert_gate_up[1].pieces[1].tensor->name,
            "model.layers.1.block_sparse_moe.experts.1.w3.weight");
}

TEST(Piece, InterleavedRowsComeBackAsHalves) {
  Piece piece;
  piece.rows = 8;
  piece.interleaved_head_dim = 4;
  EXPECT_THAT(piece.row_order(), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  piece.interleaved_head_dim = 0;
  EXPECT_TRUE(piece.row_order().empty());
}

TEST(PlanRange, FilesWithoutBlocks) {
  FakeSource source;
  source.add("transformer.wte.weight", {96, 32});
  EXPECT_THAT(plan_range(small_layout(), source, {0, 2}, MatrixFormat::kAuto).status().message(),
              HasSubstr("model.layers"));
}

}  // namespace
}  // namespace tessera::weights
