// Scenarios: what goes wrong in a run. A scenario and a seed decide everything.
#pragma once

#include <string>
#include <vector>

#include "sim/cluster.h"

namespace tessera::sim {

struct Scenario {
  std::string name;
  std::string what;
  std::function<void(Random& random, ClusterOptions& options)> configure;
  std::function<void(Cluster& cluster)> script;  // adds requests and schedules faults
};

const std::vector<Scenario>& scenarios();

struct RunResult {
  std::vector<std::string> violations;
  uint64_t trace = 0;
  std::string state;  // of the cluster, for people who look for the cause
  int requests = 0, done = 0;
  int64_t failovers = 0, reopened = 0, replayed = 0;
};
// `workers` 0: as many as the scenario says.
RunResult run_scenario(const Scenario& scenario, uint64_t seed, int workers = 0,
                       const Mutation& mutation = {});

}  // namespace tessera::sim
