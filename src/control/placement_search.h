// Search for the stages that hold a block range: which workers, in which order, cut where. Internal to
// placement.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "control/placement_model.h"

namespace tessera::control {

struct SearchQuery {
  int model = 0;
  BlockRange range;                 // to be held; the whole model, or what is missing of it
  std::span<const int> candidates;  // workers, each for one stage at most
  std::span<const uint64_t> room;   // [num_workers] bytes left
  // [num_workers] stages of other models: such a worker counts as slower by that factor + 1 when ranked.
  std::span<const int> crowd;
  int before = -1, after = -1;  // workers that hold the neighbouring blocks; -1: none
};

struct SearchResult {
  std::vector<Stage> one;  // best stage on one worker; empty: none fits
  std::vector<Stage> cut;  // best of two stages or more; empty: none fits
  double one_s = 0, cut_s = 0;
  // `one` unless the cut is faster.
  const std::vector<Stage>& best() const {
    return one.empty() || (!cut.empty() && cut_s < one_s) ? cut : one;
  }
};

// Few candidates are searched in all subsets; of many, the fastest, largest, nearest and best linked ones.
SearchResult search_stages(const PlacementView& view, const SearchQuery& query);

}  // namespace tessera::control
