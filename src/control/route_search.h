// The cheapest chain of instances that covers a model's blocks. Pure; the router and the simulator call it
// for every session.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/types.h"

namespace tessera::control {

struct RouteCandidate {
  std::string inbox;   // "WORKER/INSTANCE"
  std::string worker;  // the part before the slash
  BlockRange blocks;
  double cost_s = 0;  // compute of one token, with whatever penalties the caller adds
};

// Indices into `candidates`, in order of blocks: covers [0, num_blocks) exactly, with the least sum of costs
// and one-way hop times `hop_s(from, to)` between workers (the way from the last worker back to the first
// counts too when there are several: it carries the token). Empty when no chain covers them; then
// `uncovered`, when given, is the first block that no chain from 0 reaches past. Each range with the same
// first block is considered with its kWidth cheapest candidates.
constexpr size_t kRouteSearchWidth = 16;
std::vector<size_t> cheapest_chain(const std::vector<RouteCandidate>& candidates, int num_blocks,
                                   const std::function<double(const std::string&, const std::string&)>& hop_s,
                                   int* uncovered = nullptr);

}  // namespace tessera::control
