#include "model/families.h"

namespace tessera::model {

// Qwen2 and Qwen2.5: biases on q, k and v.
void read_qwen2(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 32768});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 10000.0);
  spec.attention_bias = true;
  read_qwen_windows(config, spec);
}

// The upper blocks, from max_window_layers on, attend in the window.
void read_qwen_windows(ConfigReader& config, ModelSpec& spec) {
  int window = config.count("sliding_window", 4096, 1, kMaxWindow);
  const int first = config.count("max_window_layers", 28, 0, kMaxWindow);
  if (!config.flag("use_sliding_window", false)) window = 0;
  set_windows(config, spec, window, [first](int block) { return block >= first; });
}

}  // namespace tessera::model
