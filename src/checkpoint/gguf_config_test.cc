#include "checkpoint/gguf_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoint/gguf_builder.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// The keys every architecture needs, for a model of two blocks, 8 wide, two heads.
GgufBuilder base(const std::string& arch) {
  GgufBuilder builder;
  builder.string("general.architecture", arch)
      .u32(arch + ".block_count", 2)
      .u32(arch + ".context_length", 128)
      .u32(arch + ".embedding_length", 8)
      .u32(arch + ".feed_forward_length", 24)
      .u32(arch + ".attention.head_count", 2)
      .f32(arch + ".attention.layer_norm_rms_epsilon", 0.25f);
  builder.tensor("token_embd.weight", {8, 5}, 0, std::string(160, '\0'));
  builder.tensor("output_norm.weight", {8}, 0, std::string(32, '\0'));
  return builder;
}

Result<Json> config_of(const GgufBuilder& builder) {
  const fs::path path = fs::path(::testing::TempDir()) / ("config_" + std::to_string(::getpid()) + ".gguf");
  EXPECT_TRUE(write_file_atomic(path, builder.build()).ok());
  auto file = GgufFile::open(path);
  fs::remove(path);
  if (!file.ok()) return file.status();
  return gguf_config(**file);
}

Json good(const GgufBuilder& builder) {
  auto config = config_of(builder);
  EXPECT_TRUE(config.ok()) << config.status().to_string();
  return config.ok() ? *config : Json::object();
}

TEST(GgufConfig, FillsDefaultsOfTheFormat) {
  const Json config = good(base("llama"));
  const Json expected = {{"_gguf_arch", "llama"},
                         {"_gguf_rope_interleaved", true},
                         {"model_type", "llama"},
                         {"num_hidden_layers", 2},
                         {"hidden_size", 8},
                         {"num_attention_heads", 2},
                         {"num_key_value_heads", 2},
                         {"head_dim", 4},
                         {"intermediate_size", 24},
                         {"vocab_size", 5},
                         {"max_position_embeddings", 128},
                         {"tie_word_embeddings", true},
                         {"rms_norm_eps", 0.25},
                         {"rope_theta", 10000.0},
                         {"rope_scaling", nullptr},
                         {"hidden_act", "silu"},
                         {"attention_bias", false},
                         {"mlp_bias", false}};
  EXPECT_EQ(config, expected) << config.dump(1);
}

TEST(GgufConfig, LlamaWithExpertsIsMixtral) {
  const Json config = good(base("llama").u32("llama.expert_count", 4).u32("llama.expert_used_count", 2));
  EXPECT_EQ(config["model_type"], "mixtral");
  EXPECT_EQ(config["num_local_experts"], 4);
  EXPECT_EQ(config["num_experts_per_tok"], 2);
}

TEST(GgufConfig, QwenMoeNamesItsDenseBlocks) {
  auto builder = base("qwen3moe");
  builder.u32("qwen3moe.expert_count", 8)
      .u32("qwen3moe.expert_used_count", 2)
      .u32("qwen3moe.expert_feed_forward_length", 6)
      .tensor("blk.1.ffn_gate_inp.weight", {8, 8}, 0, std::string(256, '\0'));
  const Json config = good(builder);
  EXPECT_EQ(config["model_type"], "qwen3_moe");
  EXPECT_EQ(config["num_experts"], 8);
  EXPECT_EQ(config["moe_intermediate_size"], 6);
  EXPECT_EQ(config["mlp_only_layers"], Json::array({0}));
  EXPECT_FALSE(config.contains("_gguf_rope_interleaved"));
}

TEST(GgufConfig, MapsRopeScaling) {
  Json scaling = good(base("qwen2").f32("qwen2.rope.scaling.factor", 4.0f))["rope_scaling"];
  EXPECT_EQ(scaling, Json({{"rope_type", "linear"}, {"factor", 4.0}}));
  scaling = good(base("qwen2").f32("qwen2.rope.scale_linear", 2.0f))["rope_scaling"];
  EXPECT_EQ(scaling["factor"], 2.0);
  scaling = good(base("qwen2")
                     .string("qwen2.rope.scaling.type", "yarn")
                     .f32("qwen2.rope.scaling.factor", 4.0f)
                     .f32("qwen2.rope.scaling.attn_factor", 0.5f)
                     .u32("qwen2.rope.scaling.original_context_length", 32))["rope_scaling"];
  EXPECT_EQ(scaling["rope_type"], "yarn");
  EXPECT_EQ(scaling["original_max_position_embeddings"], 32);
  EXPECT_NEAR(scaling["attention_factor"].get<double>(), 0.5 * (0.1 * std::log(4.0) + 1), 1e-12);
  EXPECT_EQ(config_of(base("qwen2").string("qwen2.rope.scaling.type", "yarn")).status().code(),
            Code::kCorrupt);
  EXPECT_EQ(config_of(base("qwen2").string("qwen2.rope.scaling.type", "spiral")).status().code(),
            Code::kUnsupported);
}

TEST(GgufConfig, ReadsRopeFactorTensors) {
  auto llama = base("llama");
  llama.tensor("rope_freqs.weight", {2}, 0, floats({1.0f, 8.0f}));
  EXPECT_EQ(good(llama)["_gguf_rope_factors"], Json::array({1.0, 8.0}));
  auto wrong = base("llama");
  wrong.tensor("rope_freqs.weight", {2}, 0, floats({1.0f, NAN}));
  EXPECT_EQ(config_of(wrong).status().code(), Code::kCorrupt);

  auto phi = base("phi3");
  phi.u32("phi3.rope.dimension_count", 2)
      .u32("phi3.rope.scaling.original_context_length", 32)
      .f32("phi3.rope.scaling.attn_factor", 1.25f)
      .u32("phi3.attention.sliding_window", 40)
      .tensor("rope_factors_short.weight", {1}, 0, floats({1.5f}))
      .tensor("rope_factors_long.weight", {1}, 0, floats({4.0f}));
  const Json config = good(phi);
  EXPECT_EQ(config["partial_rotary_factor"], 0.5);
  EXPECT_EQ(config["sliding_window"], 40);
  EXPECT_EQ(config["original_max_position_embeddings"], 32);
  EXPECT_EQ(config["rope_scaling"]["rope_type"], "longrope");
  EXPECT_EQ(config["rope_scaling"]["short_factor"], Json::array({1.5}));
  EXPECT_EQ(config["rope_scaling"]["long_factor"], Json::array({4.0}));
  EXPECT_EQ(config["rope_scaling"]["attention_factor"], 1.25);
}

TEST(GgufConfig, MapsGemmas) {
  Json config =
      good(base("gemma2").u32("gemma2.attention.key_length", 16).u32("gemma2.attention.value_length", 16));
  EXPECT_EQ(config["head_dim"], 16);
  EXPECT_EQ(config["query_pre_attn_scalar"], 16);
  EXPECT_EQ(config["attn_logit_softcapping"], 50.0);
  EXPECT_EQ(config["final_logit_softcapping"], 30.0);
  EXPECT_EQ(config["sliding_window"], 4096);
  EXPECT_EQ(config["_gguf_norm_plus_one"], true);
  EXPECT_EQ(config["hidden_activation"], "gelu_pytorch_tanh");

  config = good(base("gemma3").u32("gemma3.attention.sliding_window", 16));
  EXPECT_EQ(config["model_type"], "gemma3_text");
  EXPECT_EQ(config["sliding_window_pattern"], 6);
  EXPECT_EQ(config["rope_local_base_freq"], 10000.0);
  config = good(base("gemma3").array<uint8_t>("gemma3.attention.sliding_window_pattern", 7, {1, 0}));
  EXPECT_EQ(config["layer_types"], Json::array({"sliding_attention", "full_attention"}));
}

TEST(GgufConfig, RefusesWhatNoFamilyHas) {
  auto fails = [](const GgufBuilder& builder, Code code, const std::string& says) {
    auto config = config_of(builder);
    ASSERT_FALSE(config.ok()) << says;
    EXPECT_EQ(config.status().code(), code) << config.status().to_string();
    EXPECT_NE(config.status().message().find(says), std::string::npos) << config.status().message();
  };
  fails(GgufBuilder().u32("x", 1), Code::kCorrupt, "general.architecture");
  fails(GgufBuilder().string("general.architecture", "llama"), Code::kCorrupt, "block_count");
  fails(base("llama").u32("llama.attention.value_length", 2), Code::kUnsupported, "another length");
  fails(base("llama").array<int32_t>("llama.attention.head_count_kv", 5, {1, 2}), Code::kUnsupported,
        "differs");
  fails(base("llama").f32("llama.rope.freq_base", INFINITY), Code::kCorrupt, "finite");
  fails(base("llama").u32("llama.rope.dimension_count", 6), Code::kCorrupt, "head's width");
  GgufBuilder deep;
  deep.string("general.architecture", "llama").u32("llama.block_count", 4000000000u);
  fails(deep, Code::kCorrupt, "not a count");
}

TEST(GgufConfig, AgreesWithTheCheckpointItWasConvertedFrom) {
  auto file = GgufFile::open(fs::path(TESSERA_SOURCE_DIR) / "tests/parity/models/gguf/llama-f16.gguf");
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  auto config = gguf_config(**file);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  auto text = read_file(fs::path(TESSERA_SOURCE_DIR) / "tests/parity/models/llama/config.json");
  ASSERT_TRUE(text.ok());
  auto original = parse_json(*text);
  ASSERT_TRUE(original.ok());
  for (const char* key :
       {"model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings",
        "rope_theta", "bos_token_id", "eos_token_id", "head_dim", "attention_bias", "mlp_bias", "hidden_act"})
    EXPECT_EQ((*config)[key], (*original)[key]) << key;
  EXPECT_FLOAT_EQ((*config)["rms_norm_eps"].get<float>(), (*original)["rms_norm_eps"].get<float>());
  EXPECT_EQ((*config)["_gguf_rope_factors"].size(), 8u);  // head_dim 16: the original scales by "llama3"
  EXPECT_EQ(gguf_generation_config(**file), Json({{"bos_token_id", 1}, {"eos_token_id", {2}}}));
}

}  // namespace
}  // namespace tessera::checkpoint
