#include "model/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "model/rope.h"

namespace tessera::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Json config_of(const std::string& model) {
  const auto text =
      read_file(std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/parity/models" / model / "config.json");
  return parse_json(text.value()).value();
}

Result<ModelSpec> read(const Json& config) {
  return read_spec(config, Json::object());
}

void expect_refused(const Json& config, const std::string& field) {
  const auto spec = read(config);
  ASSERT_FALSE(spec.ok()) << field;
  EXPECT_THAT(spec.status().message(), HasSubstr(field));
}

TEST(ReadSpec, UnknownFamilyNamesTheKnownOnes) {
  Json config = config_of("llama");
  config["model_type"] = "mamba";
  const auto spec = read(config);
  ASSERT_FALSE(spec.ok());
  EXPECT_EQ(spec.status().code(), Code::kUnsupported);
  EXPECT_THAT(spec.status().message(), HasSubstr("mamba"));
  EXPECT_THAT(spec.status().message(), HasSubstr("gemma2, gemma3, gemma3_text, llama, mistral, mixtral"));
  EXPECT_FALSE(read(Json::array()).ok());
  EXPECT_FALSE(read(Json::object()).ok());
}

TEST(ReadSpec, FieldsThatWouldChangeTheResultAreRefusedByName) {
  const std::pair<const char*, Json> fields[] = {
      {"attention_multiplier", 0.5},
      {"logits_scaling", 8.0},
      {"pretraining_tp", 2},
      {"hidden_act", "relu"},
      {"quantization_config", {{"quant_method", "gptq"}}},
      {"attention_chunk_size", 8192},
      {"no_rope_layers", {1, 1, 0}},
      {"use_bidirectional_attention", true},
      {"something_new", 3},
      {"rope_interleaved", true},
      {"is_encoder_decoder", true},
      {"layer_types", {"sliding_attention", "full_attention", "full_attention", "full_attention"}},
      {"layer_types", {"full_attention"}},
      {"partial_rotary_factor", 1.5},
  };
  for (const auto& [key, value] : fields) {
    Json config = config_of("llama");
    config[key] = value;
    expect_refused(config, key);
  }
  Json mistral = config_of("mistral");
  mistral["attention_bias"] = true;
  expect_refused(mistral, "attention_bias");
  Json moe = config_of("qwen3-moe");
  moe["use_sliding_window"] = true;
  expect_refused(moe, "use_sliding_window");
  moe = config_of("qwen3-moe");
  moe["shared_expert_intermediate_size"] = 128;
  expect_refused(moe, "shared_expert_intermediate_size");
}

TEST(ReadSpec, FieldsThatSwitchNothingOnAreTaken) {
  Json config = config_of("llama");
  config["attention_multiplier"] = 1.0;
  config["pretraining_tp"] = 1;
  config["something_new"] = nullptr;
  config["pruned_heads"] = Json::object();
  config["rope_interleaved"] = false;
  config["transformers_version"] = "5.0";
  config["num_key_value_heads"] = nullptr;
  const auto spec = read(config);
  ASSERT_TRUE(spec.ok()) << spec.status().to_string();
  EXPECT_EQ(spec->kv_heads, spec->heads);
}

TEST(ReadSpec, MistypedAndImpossibleNumbersAreRefused) {
  const std::pair<const char*, Json> fields[] = {
      {"hidden_size", "64"},
      {"hidden_size", -64},
      {"hidden_size", 1e30},
      {"num_hidden_layers", 0},
      {"num_attention_heads", 2.5},
      {"num_key_value_heads", 3},
      {"head_dim", 15},
      {"rms_norm_eps", "x"},
      {"rms_norm_eps", 0},
      {"vocab_size", nullptr},
      {"tie_word_embeddings", 1},
      {"eos_token_id", "end"},
      {"rope_scaling", 5},
      {"max_position_embeddings", 1e18},
  };
  for (const auto& [key, value] : fields) {
    Json config = config_of("llama");
    config[key] = value;
    const auto spec = read(config);
    EXPECT_FALSE(spec.ok()) << key << " = " << value;
  }
}

TEST(ReadSpec, RopeScalingIsKnownOrRefused) {
  const auto with = [](Json scaling) {
    Json config = config_of("llama");
    config["rope_scaling"] = std::move(scaling);
    return config;
  };
  expect_refused(with({{"rope_type", "dynamic"}, {"factor", 2.0}}), "dynamic");
  expect_refused(with({{"type", "mrope"}, {"mrope_section", {1, 2}}}), "mrope");
  expect_refused(with({{"rope_type", "linear"}, {"factor", 2.0}, {"new_knob", 1}}), "new_knob");
  expect_refused(with({{"rope_type", "linear"}, {"factor", -2.0}}), "factor");
  expect_refused(with({{"rope_type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}}),
                 "longrope");
  expect_refused(with({{"rope_type", "llama3"}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}),
                 "high_freq_factor");
  Json both = config_of("qwen3");
  both["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  expect_refused(both, "rope_scaling");
}

TEST(ReadSpec, OldAndNewStyleMeanTheSame) {
  Json old_style = config_of("llama");
  Json new_style = old_style;
  Json parameters = old_style["rope_scaling"];
  parameters["rope_theta"] = old_style["rope_theta"];
  new_style.erase("rope_scaling");
  new_style.erase("rope_theta");
  new_style.erase("torch_dtype");
  new_style["rope_parameters"] = parameters;
  new_style["dtype"] = "bfloat16";
  const auto a = read(old_style);
  const auto b = read(new_style);
  ASSERT_TRUE(a.ok() && b.ok()) << b.status().to_string();
  EXPECT_EQ(a->ropes[0].inv_freq, b->ropes[0].inv_freq);
}

TEST(ReadSpec, GemmaThreeWithRopeParametersOfEachLayerType) {
  Json config = config_of("gemma3");
  const auto old_spec = read(config);
  for (const char* key : {"rope_theta", "rope_scaling", "rope_local_base_freq", "sliding_window_pattern"})
    config.erase(key);
  config["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1000000.0}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 10000.0}}}};
  config["layer_types"] = {"sliding_attention", "sliding_attention", "full_attention", "sliding_attention"};
  const auto spec = read(config);
  ASSERT_TRUE(spec.ok()) << spec.status().to_string();
  ASSERT_EQ(spec->ropes.size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(spec->ropes[i].inv_freq, old_spec->ropes[i].inv_freq);
  for (size_t b = 0; b < 4; ++b) {
    EXPECT_EQ(spec->blocks[b].window, old_spec->blocks[b].window);
    EXPECT_EQ(spec->blocks[b].rope, old_spec->blocks[b].rope);
    EXPECT_EQ(spec->blocks[b].window, b == 2 ? 0 : 16);
  }
}

TEST(ReadSpec, TextModelInsideAMultimodalConfiguration) {
  Json text = config_of("gemma3");
  text.erase("eos_token_id");
  const Json config = {{"model_type", "gemma3"},
                       {"text_config", text},
                       {"vision_config", {{"hidden_size", 1152}}},
                       {"eos_token_id", {1, 106}},
                       {"mm_tokens_per_image", 256}};
  const auto spec = read(config);
  ASSERT_TRUE(spec.ok()) << spec.status().to_string();
  EXPECT_EQ(spec->family, "gemma3_text");
  EXPECT_THAT(spec->end_tokens, ElementsAre(1, 106));
}

TEST(ReadSpec, WindowsOfQwen) {
  Json config = config_of("qwen2");
  config["use_sliding_window"] = true;
  config["sliding_window"] = 16;
  config["max_window_layers"] = 3;
  const auto spec = read(config);
  ASSERT_TRUE(spec.ok()) << spec.status().to_string();
  for (size_t b = 0; b < 4; ++b) EXPECT_EQ(spec->blocks[b].window, b == 3 ? 16 : 0);
}

TEST(ReadSpec, MistralWindowAbsentIsTheFamilysNullIsNone) {
  Json config = config_of("mistral");
  config["sliding_window"] = nullptr;
  EXPECT_EQ(read(config)->blocks[0].window, 0);
  config.erase("sliding_window");
  EXPECT_EQ(read(config)->blocks[0].window, 4096);
}

TEST(ReadSpec, DenseBlocksOfQwenMoe) {
  Json config = config_of("qwen3-moe");
  EXPECT_FALSE(read(config)->moe[0]);
  EXPECT_TRUE(read(config)->moe[1]);
  config["mlp_only_layers"] = Json::array();
  config["decoder_sparse_step"] = 2;
  EXPECT_FALSE(read(config)->moe[0]);
  EXPECT_TRUE(read(config)->moe[1]);
  EXPECT_FALSE(read(config)->moe[2]);
}

TEST(ReadSpec, EndTokensOfBothFilesInsideTheVocabulary) {
  Json config = config_of("llama");
  const auto spec = read_spec(config, {{"eos_token_id", {7, 2, 512}}, {"bos_token_id", 5}});
  ASSERT_TRUE(spec.ok());
  EXPECT_THAT(spec->end_tokens, ElementsAre(2, 7));
  EXPECT_EQ(spec->bos_token, 5);
}

// Values that the families' reference implementation computes in float32 (transformers' rope utilities).
TEST(Rope, UnscaledFrequencies) {
  const auto rope = make_rope({.theta = 10000.0, .head_dim = 8});
  ASSERT_TRUE(rope.ok());
  EXPECT_THAT(rope->spec.inv_freq,
              ElementsAre(1.0f, 0.1f, ::testing::FloatEq(0.01f), ::testing::FloatEq(0.001f)));
}

TEST(Rope, VariantsOfLongrope) {
  const Json parameters = {{"type", "su"}, {"short_factor", {1.0, 2.0}}, {"long_factor", {4.0, 8.0}}};
  const auto rope =
      make_rope({.parameters = &parameters, .head_dim = 4, .max_position = 131072, .original_context = 4096});
  ASSERT_TRUE(rope.ok()) << rope.status().to_string();
  EXPECT_EQ(rope->original_context, 4096);
  EXPECT_THAT(rope->spec.inv_freq, ElementsAre(1.0f, 0.005f, 0.25f, 0.00125f));
  // sqrt(1 + ln 32 / ln 4096), Phi-3-mini-128k's published value
  EXPECT_THAT(rope->spec.attention_factor,
              ElementsAre(::testing::FloatEq(1.1902381f), ::testing::FloatEq(1.1902381f)));
  ModelSpec spec;
  spec.original_context = rope->original_context;
  EXPECT_EQ(spec.rope_variant(4096), 0);
  EXPECT_EQ(spec.rope_variant(4097), 1);
}

TEST(Rope, FactorsOfGgufDivide) {
  const auto rope = make_rope({.head_dim = 4, .gguf_factors = {1.0, 32.0}});
  ASSERT_TRUE(rope.ok());
  EXPECT_THAT(rope->spec.inv_freq, ElementsAre(1.0f, 0.01f / 32.0f));
  EXPECT_FALSE(make_rope({.head_dim = 4, .gguf_factors = {1.0}}).ok());
}

}  // namespace
}  // namespace tessera::model
