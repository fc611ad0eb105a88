#include "model/families.h"

namespace tessera::model {

void read_qwen3(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 32768, .head_dim = 128});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 10000.0);
  spec.qk_norm = true;
  spec.attention_bias = spec.output_bias = config.flag("attention_bias", false);
  read_qwen_windows(config, spec);
}

}  // namespace tessera::model
