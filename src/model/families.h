// The registry of decoder families: one function each fills a spec from a configuration.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "model/config_reader.h"
#include "model/spec.h"

namespace tessera::model {

constexpr int kMaxWindow = 1 << 27;

struct Family {
  std::string_view model_type;
  void (*read)(ConfigReader&, ModelSpec&);
};
std::span<const Family> families();

void read_gemma2(ConfigReader& config, ModelSpec& spec);
void read_gemma3(ConfigReader& config, ModelSpec& spec);
void read_llama(ConfigReader& config, ModelSpec& spec);
void read_mistral(ConfigReader& config, ModelSpec& spec);
void read_mixtral(ConfigReader& config, ModelSpec& spec);
void read_phi3(ConfigReader& config, ModelSpec& spec);
void read_qwen2(ConfigReader& config, ModelSpec& spec);
void read_qwen3(ConfigReader& config, ModelSpec& spec);
void read_qwen3_moe(ConfigReader& config, ModelSpec& spec);

// --- what the families share; absent fields get the family's defaults, as its reference has them ---

struct Defaults {
  int context_length = 2048;
  float norm_eps = 1e-6f;
  int head_dim = 0;  // 0 = hidden / heads
  bool tied_embedding = false;
};
// Dimensions, norm epsilon, tying, and blocks that are all global and dense.
void read_dimensions(ConfigReader& config, ModelSpec& spec, const Defaults& defaults);
void read_activation(ConfigReader& config, ModelSpec& spec, std::string_view key, std::string_view fallback);
// One RoPE table for all blocks, from rope_theta and rope_scaling or from rope_parameters.
void read_rope(ConfigReader& config, ModelSpec& spec, double default_theta);
// Adds a table made of `parameters` and returns its index.
int add_rope(ConfigReader& config, ModelSpec& spec, const Json* parameters, double theta);
// What the Gemmas share besides.
void read_gemma(ConfigReader& config, ModelSpec& spec);
// use_sliding_window, max_window_layers of the dense Qwens.
void read_qwen_windows(ConfigReader& config, ModelSpec& spec);
// layer_types if present, else `windowed`, decides which blocks attend in a window (0: none may).
void set_windows(ConfigReader& config, ModelSpec& spec, int window,
                 const std::function<bool(int block)>& windowed);
// Every block a mixture of experts.
void read_experts(ConfigReader& config, ModelSpec& spec, std::string_view count_key, int default_experts,
                  int default_per_token);

}  // namespace tessera::model
