#include "control/placement_chain.h"

#include <algorithm>
#include <limits>

namespace tessera::control {
namespace {

// Of many replicas of a range the route considers the fastest ones.
constexpr size_t kReplicasConsidered = 16;

// Shortest path over the pieces between boundaries; a node is an instance that holds the piece.
std::vector<ChainHop> best_path(const PlacementView& view, int model,
                                const std::vector<PlannedInstance>& instances) {
  const std::vector<int> bounds = range_boundaries(instances, view.shape(model).num_blocks());
  struct Node {
    const PlannedInstance* instance;
    double cost;
    int from;  // index in the layer before
  };
  std::vector<std::vector<Node>> layers;
  for (size_t piece = 0; piece + 1 < bounds.size(); ++piece) {
    const BlockRange blocks{bounds[piece], bounds[piece + 1]};
    std::vector<Node> layer;
    for (const PlannedInstance& instance : instances)
      if (contains(instance.stage.blocks, blocks))
        layer.push_back({&instance, view.decode_s(model, {instance.stage.worker, blocks}), -1});
    if (layer.empty()) return {};
    std::stable_sort(layer.begin(), layer.end(), [](auto& a, auto& b) { return a.cost < b.cost; });
    if (layer.size() > kReplicasConsidered) layer.resize(kReplicasConsidered);
    if (piece > 0) {
      const auto& before = layers.back();
      for (Node& node : layer) {
        double best = std::numeric_limits<double>::infinity();
        for (size_t i = 0; i < before.size(); ++i) {
          const double cost = before[i].cost + view.row_s(model, before[i].instance->stage.worker,
                                                          node.instance->stage.worker);
          // Equal cost: stay on the same instance.
          if (cost < best || (cost == best && before[i].instance == node.instance)) {
            best = cost;
            node.from = static_cast<int>(i);
          }
        }
        node.cost += best;
      }
    }
    layers.push_back(std::move(layer));
  }
  int at = 0;
  for (size_t i = 1; i < layers.back().size(); ++i)
    if (layers.back()[i].cost < layers.back()[at].cost) at = static_cast<int>(i);
  std::vector<const PlannedInstance*> path(layers.size());
  for (int piece = static_cast<int>(layers.size()) - 1; piece >= 0; --piece) {
    path[piece] = layers[piece][at].instance;
    at = layers[piece][at].from;
  }
  std::vector<ChainHop> hops;
  for (size_t piece = 0; piece < path.size(); ++piece) {
    // A route comes to an instance once: what lies between two visits is within its range as well.
    size_t end = piece + 1;
    for (size_t later = end; later < path.size(); ++later)
      if (path[later] == path[piece]) end = later + 1;
    hops.push_back({*path[piece], {bounds[piece], bounds[end]}});
    piece = end - 1;
  }
  return hops;
}

}  // namespace

uint64_t PlannedInstance::bytes(const PlacementView& view) const {
  const ShapeIndex& shape = view.shape(model);
  return shape.weight_bytes(stage.blocks) + std::max(kv_bytes, shape.min_kv_bytes(stage.blocks));
}

std::vector<Stage> Chain::route() const {
  std::vector<Stage> route;
  for (const ChainHop& hop : hops) route.push_back({hop.instance.stage.worker, hop.blocks});
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

std::vector<PlannedInstance> smallest_cover(const std::vector<PlannedInstance>& given, int num_blocks) {
  std::vector<PlannedInstance> chosen;
  for (int at = 0; at < num_blocks;) {
    const PlannedInstance* furthest = nullptr;
    int next_start = num_blocks;
    for (const PlannedInstance& instance : given) {
      const BlockRange blocks = instance.stage.blocks;
      if (blocks.first > at) next_start = std::min(next_start, blocks.first);
      if (blocks.first <= at && blocks.last > at && (!furthest || blocks.last > furthest->stage.blocks.last))
        furthest = &instance;
    }
    if (furthest) {
      chosen.push_back(*furthest);
      at = furthest->stage.blocks.last;
    } else {
      at = next_start;
    }
  }
  return chosen;
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
  // Holes: pieces that no given instance covers, neighbouring ones joined.
  std::vector<BlockRange> holes;
  const std::vector<int> bounds = range_boundaries(instances, num_blocks);
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    const BlockRange piece{bounds[i], bounds[i + 1]};
    if (std::any_of(instances.begin(), instances.end(),
                    [&](auto& instance) { return contains(instance.stage.blocks, piece); }))
      continue;
    if (!holes.empty() && holes.back().last == piece.first)
      holes.back().last = piece.last;
    else
      holes.push_back(piece);
  }
  for (const BlockRange& hole : holes) {
    SearchQuery search{query.model, hole, query.candidates, room, query.crowd, -1, -1};
    for (const PlannedInstance& instance : instances) {
      if (search.before < 0 && instance.stage.blocks.last == hole.first)
        search.before = instance.stage.worker;
      if (search.after < 0 && instance.stage.blocks.first == hole.last) search.after = instance.stage.worker;
    }
    const SearchResult found = search_stages(view, search);
    if (found.best().empty()) return {};
    for (const Stage& stage : found.best()) {
      PlannedInstance instance{query.model, stage, {}, 0};
      room[stage.worker] -= instance.bytes(view);
      instances.push_back(std::move(instance));
    }
  }
  Chain chain;
  chain.hops = best_path(view, query.model, instances);
  chain.predicted = view.predict(query.model, chain.route());
  return chain;
}

}  // namespace tessera::control
