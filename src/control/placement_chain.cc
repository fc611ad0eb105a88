#include "control/placement_chain.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

namespace tessera::control {
namespace {

// Of many replicas of a range the route considers the fastest ones.
constexpr size_t kReplicasConsidered = 16;

// Cheapest chain of whole instances: each begins where the one before ends.
std::vector<PlannedInstance> best_path(const PlacementView& view, int model,
                                       const std::vector<PlannedInstance>& instances) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  struct Node {
    const PlannedInstance* instance;
    double decode_s;
    double cost;
    int before;  // node that it continues; -1: begins at block 0
  };
  std::vector<Node> nodes;
  for (const PlannedInstance& instance : instances)
    nodes.push_back({&instance, view.decode_s(model, instance.stage), kNone, -1});
  std::stable_sort(nodes.begin(), nodes.end(), [](const Node& a, const Node& b) {
    const BlockRange x = a.instance->stage.blocks, y = b.instance->stage.blocks;
    return std::tie(x.first, x.last, a.decode_s) < std::tie(y.first, y.last, b.decode_s);
  });
  std::map<int, std::vector<int>> ending;  // nodes that a chain from block 0 reaches, by their last block
  size_t replicas = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    Node& node = nodes[i];
    const BlockRange blocks = node.instance->stage.blocks;
    replicas = i > 0 && nodes[i - 1].instance->stage.blocks == blocks ? replicas + 1 : 0;
    if (replicas >= kReplicasConsidered) continue;
    if (blocks.first == 0) node.cost = node.decode_s;
    for (int before : ending[blocks.first]) {
      const double cost =
          nodes[before].cost + node.decode_s +
          view.row_s(model, nodes[before].instance->stage.worker, node.instance->stage.worker);
      if (cost >= node.cost) continue;
      node.cost = cost;
      node.before = before;
    }
    if (node.cost < kNone) ending[blocks.last].push_back(static_cast<int>(i));
  }
  int at = -1;
  for (int i : ending[view.shape(model).num_blocks()])
    if (at < 0 || nodes[i].cost < nodes[at].cost) at = i;
  std::vector<PlannedInstance> path;
  for (; at >= 0; at = nodes[at].before) path.push_back(*nodes[at].instance);
  std::reverse(path.begin(), path.end());
  return path;
}

bool is_one_of(BlockRange blocks, const std::vector<PlannedInstance>& instances) {
  return std::any_of(instances.begin(), instances.end(),
                     [&](const PlannedInstance& instance) { return instance.stage.blocks == blocks; });
}

}  // namespace

uint64_t PlannedInstance::bytes(const PlacementView& view) const {
  const ShapeIndex& shape = view.shape(model);
  return shape.weight_bytes(stage.blocks) + std::max(kv_bytes, shape.min_kv_bytes(stage.blocks));
}

std::vector<Stage> Chain::route() const {
  std::vector<Stage> route;
  for (const PlannedInstance& hop : hops) route.push_back(hop.stage);
  return route;
}

std::vector<int> range_boundaries(const std::vector<PlannedInstance>& instances, int num_blocks) {
  std::vector<int> bounds = {0, num_blocks};
  for (const PlannedInstance& instance : instances) {
    bounds.push_back(instance.stage.blocks.first);
    bounds.push_back(instance.stage.blocks.last);
  }
  std::sort(bounds.begin(), bounds.end());
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  return bounds;
}

std::vector<PlannedInstance> widest_cover(const std::vector<PlannedInstance>& given, int num_blocks) {
  struct Best {
    int covered = 0;                        // blocks before this one
    int count = 0;                          // instances that cover them
    const PlannedInstance* last = nullptr;  // null: the block before is covered by none
  };
  std::vector<Best> best(static_cast<size_t>(num_blocks) + 1);
  for (int end = 1; end <= num_blocks; ++end) {
    Best& here = best[end];
    here = {best[end - 1].covered, best[end - 1].count, nullptr};
    for (const PlannedInstance& instance : given) {
      const BlockRange blocks = instance.stage.blocks;
      if (blocks.last != end) continue;
      const int covered = best[blocks.first].covered + blocks.size();
      const int count = best[blocks.first].count + 1;
      if (covered > here.covered || (covered == here.covered && count < here.count))
        here = {covered, count, &instance};
    }
  }
  std::vector<PlannedInstance> chosen;
  for (int at = num_blocks; at > 0;) {
    const PlannedInstance* last = best[at].last;
    if (last != nullptr) chosen.push_back(*last);
    at = last != nullptr ? last->stage.blocks.first : at - 1;
  }
  std::reverse(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<bool> on_some_chain(const std::vector<PlannedInstance>& instances, int model, int num_blocks) {
  std::vector<bool> from_head(static_cast<size_t>(num_blocks) + 1), to_tail(from_head);
  from_head[0] = to_tail[num_blocks] = true;
  for (int block = 0; block <= num_blocks; ++block)
    for (const PlannedInstance& instance : instances)
      if (instance.model == model && instance.stage.blocks.first == block && from_head[block])
        from_head[instance.stage.blocks.last] = true;
  for (int block = num_blocks; block >= 0; --block)
    for (const PlannedInstance& instance : instances)
      if (instance.model == model && instance.stage.blocks.last == block && to_tail[block])
        to_tail[instance.stage.blocks.first] = true;
  std::vector<bool> result;
  for (const PlannedInstance& instance : instances)
    result.push_back(instance.model == model && from_head[instance.stage.blocks.first] &&
                     to_tail[instance.stage.blocks.last]);
  return result;
}

Chain build_chain(const PlacementView& view, const ChainQuery& query) {
  const int num_blocks = view.shape(query.model).num_blocks();
  std::vector<uint64_t> room = query.room;
  std::vector<PlannedInstance> instances;
  for (const PlannedInstance& instance : query.given) {
    const uint64_t bytes = instance.bytes(view);
    uint64_t& left = room[instance.stage.worker];
    if (bytes > left) continue;
    left -= bytes;
    instances.push_back(instance);
  }
  Chain chain;
  chain.hops = best_path(view, query.model, instances);
  if (!chain.ok()) {
    // As many of the blocks as can be kept together; the replicas of those ranges; and what is missing.
    const std::vector<PlannedInstance> cover = widest_cover(instances, num_blocks);
    std::erase_if(instances, [&](const PlannedInstance& i) { return !is_one_of(i.stage.blocks, cover); });
    int at = 0;
    for (size_t i = 0; i <= cover.size(); ++i) {
      const int end = i < cover.size() ? cover[i].stage.blocks.first : num_blocks;
      if (at < end) {
        SearchQuery search{query.model, {at, end}, query.candidates, room, query.crowd, -1, -1};
        if (i > 0) search.before = cover[i - 1].stage.worker;
        if (i < cover.size()) search.after = cover[i].stage.worker;
        const SearchResult found = search_stages(view, search);
        if (found.best().empty()) return {};
        for (const Stage& stage : found.best()) {
          instances.push_back({query.model, stage, {}, 0});
          room[stage.worker] -= instances.back().bytes(view);
        }
      }
      if (i < cover.size()) at = cover[i].stage.blocks.last;
    }
    chain.hops = best_path(view, query.model, instances);
  }
  if (chain.ok()) chain.predicted = view.predict(query.model, chain.route());
  return chain;
}

}  // namespace tessera::control
