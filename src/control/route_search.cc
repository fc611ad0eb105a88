#include "control/route_search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <unordered_map>

namespace tessera::control {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

struct Best {
  double cost = kNone;
  size_t before = 0;  // index of the state that it continues
  size_t head = 0;    // candidate that begins its chain
};

}  // namespace

std::vector<size_t> cheapest_chain(std::span<const RouteCandidate> candidates, int num_blocks,
                                   const std::function<double(size_t from, size_t to)>& hop_s,
                                   int* uncovered) {
  std::map<std::pair<int, int>, std::vector<size_t>> by_range;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const BlockRange blocks = candidates[i].blocks;
    if (blocks.first >= 0 && blocks.size() > 0 && blocks.last <= num_blocks)
      by_range[{blocks.first, blocks.last}].push_back(i);
  }
  const auto by_cost = [&](size_t a, size_t b) {
    return candidates[a].cost_s != candidates[b].cost_s ? candidates[a].cost_s < candidates[b].cost_s : a < b;
  };
  std::map<int, std::vector<size_t>> by_last;  // those that a chain from block 0 reaches
  std::unordered_map<size_t, Best> best;
  int reached = 0;
  for (auto& [range, group] : by_range) {
    const auto [first, end] = range;
    const auto before = by_last.find(first);
    if (first > 0 && before == by_last.end()) continue;
    const size_t width = std::min(group.size(), kRouteSearchWidth);
    std::partial_sort(group.begin(), group.begin() + static_cast<std::ptrdiff_t>(width), group.end(),
                      by_cost);
    group.resize(width);
    for (size_t i : group) {
      Best& here = best[i];
      if (first == 0) {
        here = {candidates[i].cost_s, i, i};
      } else {
        for (size_t j : before->second) {
          const Best& there = best.at(j);
          const double cost = there.cost + hop_s(j, i) + candidates[i].cost_s;
          if (cost < here.cost) here = {cost, j, there.head};
        }
      }
      by_last[end].push_back(i);
    }
    reached = std::max(reached, end);
  }
  size_t last = candidates.size();
  double least = kNone;
  for (size_t i : by_last[num_blocks]) {
    const Best& here = best.at(i);
    double cost = here.cost;
    if (here.head != i) cost += hop_s(i, here.head);
    if (cost < least) {
      least = cost;
      last = i;
    }
  }
  if (uncovered != nullptr) *uncovered = reached;
  if (last == candidates.size()) return {};
  std::vector<size_t> chain{last};
  while (candidates[chain.back()].blocks.first > 0) chain.push_back(best.at(chain.back()).before);
  std::reverse(chain.begin(), chain.end());
  return chain;
}

}  // namespace tessera::control
