#include "model/families.h"

namespace tessera::model {

// Llama 2 and 3.x, and what follows their layout (SmolLM, TinyLlama, ...).
void read_llama(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 10000.0);
  spec.attention_bias = spec.output_bias = config.flag("attention_bias", false);
  spec.mlp_bias = config.flag("mlp_bias", false);
  set_windows(config, spec, 0, [](int) { return false; });
}

}  // namespace tessera::model
