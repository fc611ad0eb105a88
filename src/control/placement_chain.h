// Builds one model's chain: instances that together hold every block, some of them given (hosted or pinned),
// and the best route through them. Internal to placement.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "control/placement_search.h"

namespace tessera::control {

// An instance that placement considers or has chosen.
struct PlannedInstance {
  int model = 0;
  Stage stage;
  std::string existing_id;                          // empty: to be loaded
  uint64_t kv_bytes = 0;                            // that an existing one is known to hold
  uint64_t bytes(const PlacementView& view) const;  // weights and at least min_context's KV
};

struct Chain {
  std::vector<PlannedInstance> hops;  // cover the model in order, each whole; empty: cannot be built
  Prediction predicted;
  bool ok() const { return !hops.empty(); }
  std::vector<Stage> route() const;
};

struct ChainQuery {
  int model = 0;
  std::vector<PlannedInstance> given;  // those that do not fit `room` any more are left out
  std::vector<int> candidates;         // for what the given ones do not cover
  std::vector<uint64_t> room;          // [num_workers], without the given ones
  std::vector<int> crowd;              // [num_workers]
};
Chain build_chain(const PlacementView& view, const ChainQuery& query);

// Of `given`, which are in order of preference, those that cover most blocks without overlapping.
std::vector<PlannedInstance> widest_cover(const std::vector<PlannedInstance>& given, int num_blocks);

// Which of `instances` are of the model and on a chain that covers it: an engine executes its range and no
// part of it, so an instance that fits no chain serves nobody.
std::vector<bool> on_some_chain(const std::vector<PlannedInstance>& instances, int model, int num_blocks);

// The sorted ends of the instances' ranges together with 0 and num_blocks.
std::vector<int> range_boundaries(const std::vector<PlannedInstance>& instances, int num_blocks);

inline bool contains(BlockRange outer, BlockRange inner) {
  return outer.first <= inner.first && inner.last <= outer.last;
}
inline bool overlap(BlockRange a, BlockRange b) {
  return a.first < b.last && b.first < a.last;
}

}  // namespace tessera::control
