#include "model/families.h"

namespace tessera::model {

// The text model of Gemma 3: windowed blocks rotate with a base of their own.
void read_gemma3(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 131072, .head_dim = 256, .tied_embedding = true});
  read_gemma(config, spec);
  spec.qk_norm = true;
  spec.attention_softcap = config.soft_cap("attn_logit_softcapping", 0);
  spec.final_softcap = config.soft_cap("final_logit_softcapping", 0);
  const int period = config.count("sliding_window_pattern", 6, 1, kMaxWindow);
  const int window = config.count("sliding_window", 4096, 1, kMaxWindow);
  set_windows(config, spec, window, [period](int block) { return (block + 1) % period != 0; });

  const Json* both = config.get("rope_parameters");
  const double local_theta = config.positive("rope_local_base_freq", 10000.0);
  int local = 0;
  if (both != nullptr && (both->contains("full_attention") || both->contains("sliding_attention"))) {
    for (const auto& [key, value] : both->items())
      if (!value.is_object() || (key != "full_attention" && key != "sliding_attention"))
        config.fail(config.refuse("rope_parameters", "expected full_attention and sliding_attention"));
    config.ignore("rope_theta");
    config.ignore("rope_scaling");
    const auto part = [both](const char* key) { return both->contains(key) ? &(*both)[key] : nullptr; };
    add_rope(config, spec, part("full_attention"), 1e6);
    local = add_rope(config, spec, part("sliding_attention"), local_theta);
  } else {
    read_rope(config, spec, 1e6);  // scaling applies to the global blocks only
    local = add_rope(config, spec, nullptr, local_theta);
  }
  for (BlockSpec& block : spec.blocks) block.rope = block.window > 0 ? local : 0;
}

}  // namespace tessera::model
