// A plan for machines that are not there yet: `tessera plan --model M --worker NAME:MEMORY…`.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "control/placement.h"

namespace tessera::app {

struct PlanAheadOptions {
  std::string model;
  std::vector<std::string> workers;  // "NAME:MEMORY[:READ[:COMPUTE]]", GB/s and TFLOP/s
  double rtt_ms = 1;                 // between any two of them, and to the gateway
  double mbit = 1000;
  int context = 4096;
};

// What each number format of the weights needs, and how it would be placed: as stored, int8, int4.
struct PlanAhead {
  struct Format {
    std::string name;
    uint64_t weight_bytes = 0;
    control::ClusterSnapshot snapshot;
    control::Plan plan;
    bool fits() const { return !plan.models.empty() && !plan.models[0].cuts.empty(); }
  };
  std::vector<Format> formats;
  bool assumed_speeds = false;  // some worker's speed was not said
};
Result<PlanAhead> plan_ahead(const PlanAheadOptions& options);

std::string plan_ahead_text(const PlanAhead& ahead);
Json plan_ahead_json(const PlanAhead& ahead);

}  // namespace tessera::app
