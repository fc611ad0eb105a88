#include "checkpoint/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

namespace tessera::checkpoint {
namespace {

constexpr uint64_t kMaxRopeFactors = 4096;

// Typed access to "ARCHITECTURE.key", and the config being filled.
class Mapping {
 public:
  Mapping(const GgufFile& file, std::string architecture)
      : file_(file), architecture_(std::move(architecture)) {}

  const GgufFile& file() const { return file_; }
  const std::string& architecture() const { return architecture_; }
  bool is(std::string_view name) const { return architecture_ == name; }
  std::string key(std::string_view name) const { return architecture_ + "." + std::string(name); }

  // A number, or a per-block list whose entries are all equal; nothing when absent.
  Result<std::optional<uint64_t>> count(std::string_view name) const {
    const std::string full = key(name);
    auto it = file_.metadata().find(full);
    if (it == file_.metadata().end()) return std::optional<uint64_t>();
    std::optional<uint64_t> value = file_.get_u64(full);
    if (const auto* list = std::get_if<std::vector<int64_t>>(&it->second);
        list != nullptr && !list->empty()) {
      if (std::adjacent_find(list->begin(), list->end(), std::not_equal_to<>()) != list->end())
        return unsupported(full + " differs between blocks");
      if (list->front() >= 0) value = static_cast<uint64_t>(list->front());
    }
    if (!value || *value > INT32_MAX) return corrupt(full + " is not a count");
    return value;
  }
  Result<uint64_t> positive_count(std::string_view name) const {
    TESSERA_ASSIGN_OR_RETURN(auto value, count(name));
    if (!value || *value == 0) return corrupt("metadata " + key(name) + " is missing or zero");
    return *value;
  }
  // Nothing when absent; refused when not finite.
  Result<std::optional<double>> number(std::string_view name) const {
    const auto value = file_.get_f64(key(name));
    if (value && !std::isfinite(*value)) return corrupt(key(name) + " is not a finite number");
    return value;
  }
  Result<double> number_or(std::string_view name, double fallback) const {
    TESSERA_ASSIGN_OR_RETURN(auto value, number(name));
    return value.value_or(fallback);
  }

 private:
  const GgufFile& file_;
  std::string architecture_;
};

struct Shape {
  uint64_t blocks = 0;
  uint64_t hidden = 0;
  uint64_t heads = 0;
  uint64_t head_dim = 0;
};

std::string model_type_of(const std::string& architecture, bool has_experts) {
  if (architecture == "llama") return has_experts ? "mixtral" : "llama";
  if (architecture == "qwen2moe") return "qwen2_moe";
  if (architecture == "qwen3moe") return "qwen3_moe";
  if (architecture == "gemma3") return "gemma3_text";
  return architecture;
}

Result<Shape> map_shape(const Mapping& map, Json& config) {
  Shape shape;
  TESSERA_ASSIGN_OR_RETURN(shape.blocks, map.positive_count("block_count"));
  if (shape.blocks > map.file().tensors().size())
    return corrupt(map.key("block_count") + " is " + std::to_string(shape.blocks) +
                   ", more than the file has tensors");
  TESSERA_ASSIGN_OR_RETURN(shape.hidden, map.positive_count("embedding_length"));
  TESSERA_ASSIGN_OR_RETURN(shape.heads, map.positive_count("attention.head_count"));
  TESSERA_ASSIGN_OR_RETURN(auto kv_heads, map.count("attention.head_count_kv"));
  TESSERA_ASSIGN_OR_RETURN(auto key_length, map.count("attention.key_length"));
  TESSERA_ASSIGN_OR_RETURN(auto value_length, map.count("attention.value_length"));
  const uint64_t even_share = shape.hidden / shape.heads;
  shape.head_dim = key_length.value_or(even_share);
  if (shape.head_dim == 0) return corrupt("the attention heads have no width");
  if (value_length.value_or(even_share) != shape.head_dim)
    return unsupported("attention keys of length " + std::to_string(shape.head_dim) +
                       " with values of another length");
  TESSERA_ASSIGN_OR_RETURN(auto feed_forward, map.count("feed_forward_length"));
  TESSERA_ASSIGN_OR_RETURN(uint64_t context, map.positive_count("context_length"));
  const TensorInfo* embedding = map.file().find("token_embd.weight");
  if (embedding == nullptr) return corrupt("the file has no tensor token_embd.weight");
  if (embedding->shape.size() != 2 || embedding->shape[0] == 0 || embedding->shape[1] != shape.hidden)
    return corrupt("token_embd.weight is not [vocabulary, " + std::to_string(shape.hidden) + "]");
  config["num_hidden_layers"] = shape.blocks;
  config["hidden_size"] = shape.hidden;
  config["num_attention_heads"] = shape.heads;
  config["num_key_value_heads"] = kv_heads.value_or(shape.heads);
  config["head_dim"] = shape.head_dim;
  if (feed_forward) config["intermediate_size"] = *feed_forward;
  config["max_position_embeddings"] = context;
  config["vocab_size"] = embedding->shape[0];
  config["tie_word_embeddings"] = map.file().find("output.weight") == nullptr;
  TESSERA_ASSIGN_OR_RETURN(auto epsilon, map.number("attention.layer_norm_rms_epsilon"));
  if (epsilon) config["rms_norm_eps"] = *epsilon;
  return shape;
}

Status map_experts(const Mapping& map, const Shape& shape, Json& config) {
  TESSERA_ASSIGN_OR_RETURN(auto experts, map.count("expert_count"));
  if (experts.value_or(0) == 0) return {};
  TESSERA_ASSIGN_OR_RETURN(uint64_t used, map.positive_count("expert_used_count"));
  config[map.is("llama") ? "num_local_experts" : "num_experts"] = *experts;
  config["num_experts_per_tok"] = used;
  TESSERA_ASSIGN_OR_RETURN(auto expert_length, map.count("expert_feed_forward_length"));
  if (expert_length) config["moe_intermediate_size"] = *expert_length;
  if (map.is("llama")) return {};
  if (map.is("qwen3moe")) config["norm_topk_prob"] = true;  // the format has no key for it
  config["decoder_sparse_step"] = 1;
  Json dense = Json::array();
  for (uint64_t block = 0; block < shape.blocks; ++block) {
    if (map.file().find("blk." + std::to_string(block) + ".ffn_gate_inp.weight") == nullptr)
      dense.push_back(block);
  }
  config["mlp_only_layers"] = std::move(dense);
  return {};
}

// The values of a small F32 tensor of per-frequency factors.
Result<Json> read_factors(const TensorInfo& tensor) {
  if (tensor.dtype != DType::kF32 || tensor.shape.size() != 1 || tensor.shape[0] > kMaxRopeFactors)
    return corrupt(tensor.name + " is not a short list of F32");
  Json values = Json::array();
  for (uint64_t i = 0; i < tensor.shape[0]; ++i) {
    float value = 0;
    std::memcpy(&value, tensor.data().data() + i * sizeof value, sizeof value);
    if (!std::isfinite(value) || value <= 0)
      return corrupt(tensor.name + " holds a factor that is not positive");
    values.push_back(value);
  }
  return values;
}

Status map_yarn(const Mapping& map, double factor, Json& scaling) {
  // The runtime multiplies the stored factor with yarn's own; config.json's attention_factor replaces it.
  TESSERA_ASSIGN_OR_RETURN(auto attention, map.number("rope.scaling.attn_factor"));
  if (!attention) {
    TESSERA_ASSIGN_OR_RETURN(attention, map.number("rope.scaling.yarn_attn_factor"));
  }
  if (attention && *attention != 1.0)
    scaling["attention_factor"] = *attention * (factor > 1 ? 0.1 * std::log(factor) + 1.0 : 1.0);
  TESSERA_ASSIGN_OR_RETURN(auto beta_fast, map.number("rope.scaling.yarn_beta_fast"));
  if (beta_fast) scaling["beta_fast"] = *beta_fast;
  TESSERA_ASSIGN_OR_RETURN(auto beta_slow, map.number("rope.scaling.yarn_beta_slow"));
  if (beta_slow) scaling["beta_slow"] = *beta_slow;
  TESSERA_ASSIGN_OR_RETURN(auto extrapolation, map.number("rope.scaling.yarn_ext_factor"));
  if (extrapolation && *extrapolation >= 0 && *extrapolation != 1.0)
    return unsupported(map.key("rope.scaling.yarn_ext_factor") + " other than 1");
  return {};
}

Status map_longrope(const Mapping& map, Json& config, Json& scaling) {
  const TensorInfo* short_factors = map.file().find("rope_factors_short.weight");
  const TensorInfo* long_factors = map.file().find("rope_factors_long.weight");
  if (short_factors == nullptr || long_factors == nullptr)
    return corrupt("longrope scaling without rope_factors_short.weight and rope_factors_long.weight");
  TESSERA_ASSIGN_OR_RETURN(scaling["short_factor"], read_factors(*short_factors));
  TESSERA_ASSIGN_OR_RETURN(scaling["long_factor"], read_factors(*long_factors));
  TESSERA_ASSIGN_OR_RETURN(auto attention, map.number("rope.scaling.attn_factor"));
  if (attention) scaling["attention_factor"] = *attention;
  if (scaling.contains("original_max_position_embeddings"))
    config["original_max_position_embeddings"] = scaling["original_max_position_embeddings"];
  return {};
}

Status map_rope(const Mapping& map, const Shape& shape, Json& config) {
  TESSERA_ASSIGN_OR_RETURN(double theta, map.number_or("rope.freq_base", 10000.0));
  config["rope_theta"] = theta;
  TESSERA_ASSIGN_OR_RETURN(auto rotary, map.count("rope.dimension_count"));
  if (rotary && *rotary != shape.head_dim) {
    if (*rotary == 0 || *rotary > shape.head_dim)
      return corrupt(map.key("rope.dimension_count") + " does not fit the head's width");
    config["partial_rotary_factor"] = static_cast<double>(*rotary) / static_cast<double>(shape.head_dim);
  }
  if (const TensorInfo* factors = map.file().find("rope_freqs.weight")) {
    TESSERA_ASSIGN_OR_RETURN(config["_gguf_rope_factors"], read_factors(*factors));
  }
  // "scale_linear" is the older key; a factor without a type is linear.
  TESSERA_ASSIGN_OR_RETURN(double factor, map.number_or("rope.scaling.factor", 0.0));
  if (factor == 0.0) {
    TESSERA_ASSIGN_OR_RETURN(factor, map.number_or("rope.scale_linear", 0.0));
  }
  std::string type = map.file().get_string(map.key("rope.scaling.type")).value_or("linear");
  if (map.file().find("rope_factors_long.weight") != nullptr) type = "longrope";
  config["rope_scaling"] = nullptr;
  if (type == "none" || (type == "linear" && (factor == 0.0 || factor == 1.0))) return {};
  Json scaling = {{"rope_type", type}};
  if (factor != 0.0) scaling["factor"] = factor;
  TESSERA_ASSIGN_OR_RETURN(auto original, map.count("rope.scaling.original_context_length"));
  if (original && *original > 0) scaling["original_max_position_embeddings"] = *original;
  if (type == "yarn") {
    if (factor <= 0.0) return corrupt("yarn scaling without a factor");
    TESSERA_RETURN_IF_ERROR(map_yarn(map, factor, scaling));
  } else if (type == "longrope") {
    TESSERA_RETURN_IF_ERROR(map_longrope(map, config, scaling));
  } else if (type != "linear") {
    return unsupported("rope scaling type " + type);
  }
  config["rope_scaling"] = std::move(scaling);
  return {};
}

// Which blocks attend in a window: a period, or one flag for each block.
Status map_window_pattern(const Mapping& map, const Shape& shape, uint64_t default_period, Json& config) {
  const std::string key = map.key("attention.sliding_window_pattern");
  if (const auto flags = map.file().get_bool_array(key)) {
    if (flags->size() != shape.blocks) return corrupt(key + " has not one flag for each block");
    Json types = Json::array();
    for (bool windowed : *flags) types.push_back(windowed ? "sliding_attention" : "full_attention");
    config["layer_types"] = std::move(types);
    return {};
  }
  const uint64_t period = map.file().get_u64(key).value_or(default_period);
  if (period == 0 || period > INT32_MAX) return corrupt(key + " is no period");
  config["sliding_window_pattern"] = period;
  return {};
}

Status map_gemma(const Mapping& map, const Shape& shape, Json& config) {
  const bool second = map.is("gemma2");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["_gguf_norm_plus_one"] = true;
  if (!second && !map.is("gemma3")) return {};
  if (second) {
    TESSERA_ASSIGN_OR_RETURN(double attention, map.number_or("attn_logit_softcapping", 50.0));
    TESSERA_ASSIGN_OR_RETURN(double final, map.number_or("final_logit_softcapping", 30.0));
    config["attn_logit_softcapping"] = attention;
    config["final_logit_softcapping"] = final;
    if (!config.contains("sliding_window")) config["sliding_window"] = 4096;
  } else {
    TESSERA_ASSIGN_OR_RETURN(auto final, map.number("final_logit_softcapping"));
    if (final) config["final_logit_softcapping"] = *final;
    TESSERA_ASSIGN_OR_RETURN(double local_theta, map.number_or("rope.freq_base_swa", 10000.0));
    config["rope_local_base_freq"] = local_theta;
  }
  // The format does not store the query scale. The 27B models, known by their depth, use hidden / heads.
  const bool largest = shape.blocks == (second ? 46 : 62);
  config["query_pre_attn_scalar"] = largest ? shape.hidden / shape.heads : shape.head_dim;
  return map_window_pattern(map, shape, second ? 2 : 6, config);
}

Status map_family(const Mapping& map, const Shape& shape, Json& config) {
  TESSERA_ASSIGN_OR_RETURN(auto window, map.count("attention.sliding_window"));
  if (window && *window > 0) config["sliding_window"] = *window;
  if (map.architecture().starts_with("gemma")) return map_gemma(map, shape, config);
  config["hidden_act"] = "silu";
  if (map.is("qwen2") || map.is("qwen3") || map.is("qwen2moe") || map.is("qwen3moe"))
    config["use_sliding_window"] = window.value_or(0) > 0;
  if (map.is("llama")) {
    config["_gguf_rope_interleaved"] = true;
    config["attention_bias"] = map.file().find("blk.0.attn_q.bias") != nullptr;
    config["mlp_bias"] = map.file().find("blk.0.ffn_gate.bias") != nullptr;
  }
  return {};
}

}  // namespace

Result<Json> gguf_config(const GgufFile& file) {
  const auto architecture = file.get_string("general.architecture");
  if (!architecture || architecture->empty() || architecture->size() > 64)
    return corrupt("metadata general.architecture is missing");
  const Mapping map(file, *architecture);
  TESSERA_ASSIGN_OR_RETURN(auto experts, map.count("expert_count"));
  Json config = Json::object();
  config["_gguf_arch"] = *architecture;
  config["model_type"] = model_type_of(*architecture, experts.value_or(0) > 0);
  TESSERA_ASSIGN_OR_RETURN(Shape shape, map_shape(map, config));
  TESSERA_RETURN_IF_ERROR(map_experts(map, shape, config));
  TESSERA_RETURN_IF_ERROR(map_rope(map, shape, config));
  TESSERA_RETURN_IF_ERROR(map_family(map, shape, config));
  const auto bos = file.get_u64("tokenizer.ggml.bos_token_id");
  if (bos) config["bos_token_id"] = *bos;
  const auto eos = file.get_u64("tokenizer.ggml.eos_token_id");
  if (eos) config["eos_token_id"] = *eos;
  return config;
}

Json gguf_generation_config(const GgufFile& file) {
  Json config = Json::object();
  if (const auto bos = file.get_u64("tokenizer.ggml.bos_token_id")) config["bos_token_id"] = *bos;
  Json ends = Json::array();
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    const auto id = file.get_u64(key);
    if (id && std::find(ends.begin(), ends.end(), Json(*id)) == ends.end()) ends.push_back(*id);
  }
  if (!ends.empty()) config["eos_token_id"] = std::move(ends);
  return config;
}

}  // namespace tessera::checkpoint
