#include "model/families.h"

namespace tessera::model {

void read_mixtral(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 131072, .norm_eps = 1e-5f});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 1e6);
  read_experts(config, spec, "num_local_experts", 8, 2);
  set_windows(config, spec, config.count("sliding_window", 0, 1, kMaxWindow), [](int) { return true; });
}

}  // namespace tessera::model
