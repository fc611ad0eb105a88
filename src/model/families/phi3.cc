#include "model/families.h"

namespace tessera::model {

// Phi-3, 3.5 and Phi-4-mini: fused projections (the loader splits them), longrope.
void read_phi3(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 4096, .norm_eps = 1e-5f});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 10000.0);
  set_windows(config, spec, config.count("sliding_window", 0, 1, kMaxWindow), [](int) { return true; });
}

}  // namespace tessera::model
