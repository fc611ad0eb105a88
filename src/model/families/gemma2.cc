#include <cmath>

#include "model/families.h"

namespace tessera::model {

void read_gemma(ConfigReader& config, ModelSpec& spec) {
  read_activation(config, spec, "hidden_activation", "gelu_pytorch_tanh");
  config.ignore("hidden_act");  // an older key, which the family's reference does not read
  spec.norm_plus_one = !config.flag("_gguf_norm_plus_one", false);
  spec.post_norms = true;
  spec.attention_bias = spec.output_bias = config.flag("attention_bias", false);
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden));
  spec.attention_scale = static_cast<float>(1.0 / std::sqrt(config.positive("query_pre_attn_scalar", 256)));
}

void read_gemma2(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 8192, .head_dim = 256, .tied_embedding = true});
  read_gemma(config, spec);
  read_rope(config, spec, 10000.0);
  spec.attention_softcap = config.soft_cap("attn_logit_softcapping", 50.0);
  spec.final_softcap = config.soft_cap("final_logit_softcapping", 30.0);
  const int period = config.count("sliding_window_pattern", 2, 1, kMaxWindow);
  const int window = config.count("sliding_window", 4096, 1, kMaxWindow);
  set_windows(config, spec, window, [period](int block) { return (block + 1) % period != 0; });
}

}  // namespace tessera::model
