// The sentences of ModelPlan::reason. Internal to placement.
#pragma once

#include <string>
#include <vector>

#include "control/placement_chain.h"

namespace tessera::control {

// How a model's chain was found and what else was possible.
struct Decision {
  Chain chosen;
  bool kept = false;  // chosen continues what is hosted
  Chain kept_chain;   // not ok(): nothing was hosted, or it cannot be completed
  Chain fresh_chain;
  // From scratch, at the time of the decision; empty: not possible.
  std::vector<Stage> one, cut;
};

// "12.5 tok/s, first token after 0.41 s"
std::string describe(const Prediction& predicted);

std::string reason_of(const PlacementView& view, int model, const Decision& decision);

// Why a model is not served: what it needs, what is missing, and the formats that would fit. `room` is what
// other models left.
std::string reason_uncovered(const PlacementView& view, int model, const std::vector<int>& candidates,
                             const std::vector<uint64_t>& room);

}  // namespace tessera::control
