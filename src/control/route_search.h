// The cheapest chain of instances that covers a model's blocks. Pure; the router and the simulator call it
// for every session.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "core/types.h"

namespace tessera::control {

struct RouteCandidate {
  BlockRange blocks;
  double cost_s = 0;  // compute of one token, with whatever penalties the caller adds
};

// Indices into `candidates`, in order of blocks: covers [0, num_blocks) exactly, with the least sum of costs
// and one-way hop times `hop_s(from, to)` between candidates, by index (the way from the last one back to the
// first counts too when there are several: it carries the token). Of equal candidates the first is taken.
// Empty when no chain covers them; then `uncovered`, when given, is the first block that no chain from 0
// reaches past. Each range is considered with its kRouteSearchWidth cheapest candidates, so the cost beyond
// one look at each does not grow with their number.
constexpr size_t kRouteSearchWidth = 16;
std::vector<size_t> cheapest_chain(std::span<const RouteCandidate> candidates, int num_blocks,
                                   const std::function<double(size_t from, size_t to)>& hop_s,
                                   int* uncovered = nullptr);

}  // namespace tessera::control
