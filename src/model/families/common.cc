// What the families share when they read a configuration.
#include <cmath>

#include "model/families.h"
#include "model/rope.h"

namespace tessera::model {
namespace {

// Far above every published model; products of two stay inside 64 bits.
constexpr int kMaxBlocks = 4096;
constexpr int kMaxHidden = 1 << 20;
constexpr int kMaxHeads = 1 << 14;
constexpr int kMaxHeadDim = 1 << 12;
constexpr int kMaxFfn = 1 << 22;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxContext = 1 << 27;
constexpr int kMaxExperts = 1 << 14;
constexpr size_t kMaxRopeFactors = 4096;

}  // namespace

void read_dimensions(ConfigReader& config, ModelSpec& spec, const Defaults& defaults) {
  spec.num_blocks = config.required_count("num_hidden_layers", kMaxBlocks);
  spec.hidden = config.required_count("hidden_size", kMaxHidden);
  spec.heads = config.required_count("num_attention_heads", kMaxHeads);
  spec.kv_heads = config.count("num_key_value_heads", spec.heads, 1, kMaxHeads);
  const int head_dim = defaults.head_dim > 0 ? defaults.head_dim : spec.hidden / spec.heads;
  spec.head_dim = config.count("head_dim", head_dim, 1, kMaxHeadDim);
  spec.ffn = config.required_count("intermediate_size", kMaxFfn);
  spec.vocab = config.required_count("vocab_size", kMaxVocab);
  spec.context_length = config.count("max_position_embeddings", defaults.context_length, 1, kMaxContext);
  spec.norm_eps = static_cast<float>(config.positive("rms_norm_eps", static_cast<double>(defaults.norm_eps)));
  spec.tied_embedding = config.flag("tie_word_embeddings", defaults.tied_embedding);
  spec.rope_rows_interleaved = config.flag("_gguf_rope_interleaved", false);
  if (spec.heads % spec.kv_heads != 0)
    config.fail(config.refuse("num_key_value_heads", "does not divide num_attention_heads"));
  if (spec.head_dim < 2 || spec.head_dim % 2 != 0)
    config.fail(unsupported("attention heads of " + std::to_string(spec.head_dim) +
                            " dimensions: expected an even number"));
  spec.attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec.head_dim)));
  spec.blocks.resize(static_cast<size_t>(spec.num_blocks));
  spec.moe.resize(spec.blocks.size());
}

void read_activation(ConfigReader& config, ModelSpec& spec, std::string_view key, std::string_view fallback) {
  const std::string name = config.text(key, fallback);
  if (name == "silu" || name == "swish") {
    spec.activation = tensor::Activation::kSilu;
  } else if (name == "gelu_pytorch_tanh" || name == "gelu_new") {
    spec.activation = tensor::Activation::kGeluTanh;
  } else if (name == "gelu") {
    spec.activation = tensor::Activation::kGelu;
  } else {
    config.fail(config.refuse(key, "known are silu, gelu and gelu_pytorch_tanh"));
  }
}

int add_rope(ConfigReader& config, ModelSpec& spec, const Json* parameters, double theta) {
  RopeInput input;
  input.parameters = parameters;
  input.theta = theta;
  input.partial_rotary = config.positive("partial_rotary_factor", 1.0);
  input.head_dim = spec.head_dim;
  input.max_position = spec.context_length;
  input.original_context = config.count("original_max_position_embeddings", 0, 1, kMaxContext);
  input.gguf_factors = config.numbers("_gguf_rope_factors", kMaxRopeFactors);
  if (!config.status().ok()) return 0;
  Result<Rope> rope = make_rope(input);
  if (!rope.ok()) {
    config.fail(rope.status());
    return 0;
  }
  if (rope->original_context > 0) spec.original_context = rope->original_context;
  spec.ropes.push_back(std::move(rope->spec));
  return static_cast<int>(spec.ropes.size()) - 1;
}

void read_rope(ConfigReader& config, ModelSpec& spec, double default_theta) {
  const double theta = config.positive("rope_theta", default_theta);
  const Json* scaling = config.get("rope_scaling");
  const Json* parameters = config.get("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters)
    config.fail(config.refuse("rope_scaling", "differs from rope_parameters, which is given as well"));
  add_rope(config, spec, parameters != nullptr ? parameters : scaling, theta);
}

void set_windows(ConfigReader& config, ModelSpec& spec, int window,
                 const std::function<bool(int block)>& windowed) {
  const Json* types = config.get("layer_types");
  if (types != nullptr && (!types->is_array() || types->size() != spec.blocks.size())) {
    config.fail(config.refuse("layer_types", "expected one type for each block"));
    return;
  }
  for (int block = 0; block < spec.num_blocks; ++block) {
    const auto index = static_cast<size_t>(block);
    bool in_window = window > 0 && windowed(block);
    if (types != nullptr) {
      const Json& type = (*types)[index];
      in_window = type == "sliding_attention";
      if (!in_window && type != "full_attention") {
        config.fail(config.refuse("layer_types", "known are full_attention and sliding_attention"));
        return;
      }
      if (in_window && window == 0) {
        config.fail(config.refuse("layer_types", "sliding_attention without a sliding_window"));
        return;
      }
    }
    spec.blocks[index].window = in_window ? window : 0;
  }
}

void read_experts(ConfigReader& config, ModelSpec& spec, std::string_view count_key, int default_experts,
                  int default_per_token) {
  spec.experts = config.count(count_key, default_experts, 1, kMaxExperts);
  spec.experts_per_token = config.count("num_experts_per_tok", default_per_token, 1, kMaxExperts);
  spec.expert_ffn = config.count("moe_intermediate_size", spec.ffn, 1, kMaxFfn);
  if (spec.experts_per_token > spec.experts)
    config.fail(config.refuse("num_experts_per_tok", "more than there are experts"));
  spec.moe.assign(spec.blocks.size(), true);
}

}  // namespace tessera::model
