#include "model/families.h"

namespace tessera::model {

void read_mistral(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 131072});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 10000.0);
  // Absent means the family's 4096, null means none.
  const int window =
      config.mentions("sliding_window") ? config.count("sliding_window", 0, 1, kMaxWindow) : 4096;
  set_windows(config, spec, window, [](int) { return true; });
}

}  // namespace tessera::model
