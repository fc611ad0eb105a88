#include "control/route_search.h"

#include <algorithm>
#include <limits>
#include <map>

namespace tessera::control {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

struct Best {
  double cost = kNone;
  size_t before = 0;  // index of the state that it continues
  size_t head = 0;    // candidate that begins its chain
};

}  // namespace

std::vector<size_t> cheapest_chain(const std::vector<RouteCandidate>& candidates, int num_blocks,
                                   const std::function<double(const std::string&, const std::string&)>& hop_s,
                                   int* uncovered) {
  std::map<int, std::vector<size_t>> by_first;
  for (size_t i = 0; i < candidates.size(); ++i) by_first[candidates[i].blocks.first].push_back(i);
  std::map<int, std::vector<size_t>> by_last;  // those that a chain from block 0 reaches
  std::vector<Best> best(candidates.size());
  int reached = 0;
  for (auto& [first, group] : by_first) {
    const auto by_cost = [&](size_t a, size_t b) {
      return candidates[a].cost_s != candidates[b].cost_s ? candidates[a].cost_s < candidates[b].cost_s
                                                          : candidates[a].inbox < candidates[b].inbox;
    };
    // Ranges of one beginning may end differently: the width is for each end.
    std::sort(group.begin(), group.end(), by_cost);
    std::map<int, size_t> taken;
    for (size_t i : group) {
      const BlockRange blocks = candidates[i].blocks;
      if (blocks.size() <= 0 || blocks.last > num_blocks || taken[blocks.last]++ >= kRouteSearchWidth)
        continue;
      if (first == 0) {
        best[i] = {candidates[i].cost_s, i, i};
      } else if (auto before = by_last.find(first); before != by_last.end()) {
        for (size_t j : before->second) {
          const double cost =
              best[j].cost + hop_s(candidates[j].worker, candidates[i].worker) + candidates[i].cost_s;
          if (cost < best[i].cost) best[i] = {cost, j, best[j].head};
        }
      }
      if (best[i].cost == kNone) continue;
      by_last[blocks.last].push_back(i);
      reached = std::max(reached, blocks.last);
    }
  }
  size_t last = candidates.size();
  double least = kNone;
  for (size_t i : by_last[num_blocks]) {
    double cost = best[i].cost;
    if (best[i].head != i) cost += hop_s(candidates[i].worker, candidates[best[i].head].worker);
    if (cost < least) {
      least = cost;
      last = i;
    }
  }
  if (uncovered != nullptr) *uncovered = reached;
  if (last == candidates.size()) return {};
  std::vector<size_t> chain{last};
  while (candidates[chain.back()].blocks.first > 0) chain.push_back(best[chain.back()].before);
  std::reverse(chain.begin(), chain.end());
  return chain;
}

}  // namespace tessera::control
