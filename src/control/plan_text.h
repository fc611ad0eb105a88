// A plan for people (`tessera plan`) and for scripts (`tessera plan --json`).
#pragma once

#include <string>

#include "base/json.h"
#include "control/placement.h"

namespace tessera::control {

// One line for each assignment (worker, model, blocks, weights, KV, its decode step), then for each model its
// prediction and the reason. `snapshot` is what the plan was made from. Ends in a newline.
std::string plan_table(const ClusterSnapshot& snapshot, const Plan& plan);

// {"models":[{"model","served","tokens_per_s","max_tokens_per_s","ttft_s","reason",
//             "route":[{"worker","blocks":[first,last]}]}],
//  "assignments":[{"worker","model","blocks":[first,last],"weight_bytes","kv_bytes","kv_tokens","instance"}]}
// "instance" is null for what is still to be loaded.
Json plan_json(const ClusterSnapshot& snapshot, const Plan& plan);

}  // namespace tessera::control
