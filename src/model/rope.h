// Inverse frequencies of rotary position embeddings, as the families' configurations scale them.
#pragma once

#include <vector>

#include "base/json.h"
#include "model/spec.h"

namespace tessera::model {

struct RopeInput {
  const Json* parameters = nullptr;  // rope_scaling or rope_parameters; null: no scaling
  double theta = 10000.0;            // parameters' own rope_theta comes first
  double partial_rotary = 1.0;       // likewise partial_rotary_factor
  int head_dim = 0;
  int max_position = 0;
  int original_context = 0;               // config.json's own original_max_position_embeddings, 0 = none
  std::vector<double> gguf_factors = {};  // each frequency is divided by its factor
};

struct Rope {
  RopeSpec spec;
  int original_context = 0;  // longrope only: see ModelSpec::original_context
};

// Unsupported names a type or field that is not implemented.
Result<Rope> make_rope(const RopeInput& input);

}  // namespace tessera::model
