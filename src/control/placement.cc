#include "control/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "control/placement_chain.h"
#include "control/placement_reason.h"

namespace tessera::control {
namespace {

constexpr double kHysteresis = 1.2;    // a plan that moves what is hosted must be better by this factor
constexpr int kMostFullContexts = 64;  // of KV in an instance
constexpr double kRankingBatch = 16;   // sessions decoded together when replicas are compared
constexpr double kMostBatch = 64;      // that a throughput prediction counts on
constexpr int kFurtherRoutes = 4;      // made of workers that no range of the best route fits

class Planner {
 public:
  explicit Planner(const ClusterSnapshot& snapshot) : view_(snapshot), pins_(view_.num_workers(), {-1, {}}) {
    find_pins();
    find_hosted();
    for (int w = 0; w < view_.num_workers(); ++w)
      if (view_.worker(w).accepts && !view_.worker(w).capabilities.pinned_blocks) free_workers_.push_back(w);
  }

  Plan run() {
    cover_models();
    keep_the_rest();
    place_unused_pins();
    replicate();
    return describe_plan();
  }

 private:
  struct Pin {
    int model;  // -1: none
    BlockRange blocks;
  };

  void find_pins() {
    for (int w = 0; w < view_.num_workers(); ++w) {
      const WorkerCapabilities& capabilities = view_.worker(w).capabilities;
      if (!capabilities.pinned_blocks) continue;
      const BlockRange blocks = *capabilities.pinned_blocks;
      auto has = [&](int model) {
        return model >= 0 && blocks.first >= 0 && blocks.size() > 0 &&
               blocks.last <= view_.shape(model).num_blocks();
      };
      int model = view_.model_index(capabilities.pinned_model);
      if (capabilities.pinned_model.empty()) {
        for (const auto& hosted : view_.worker(w).hosted)
          if (hosted.blocks == blocks) model = view_.model_index(hosted.model);
        for (int m = 0; m < view_.num_models() && !has(model); ++m) model = m;
      }
      if (has(model)) pins_[w] = {model, blocks};
    }
  }

  // Hosted instances that may stay: of a model still served, whole, on a worker not pinned to another range.
  void find_hosted() {
    std::vector<bool> ready;
    for (int w = 0; w < view_.num_workers(); ++w)
      for (const auto& hosted : view_.worker(w).hosted) {
        const int model = view_.model_index(hosted.model);
        if (model < 0 || hosted.blocks.first < 0 || hosted.blocks.size() <= 0 ||
            hosted.blocks.last > view_.shape(model).num_blocks())
          continue;
        const bool is_pinned = view_.worker(w).capabilities.pinned_blocks.has_value();
        if (is_pinned && !(pins_[w].model == model && pins_[w].blocks == hosted.blocks)) continue;
        hosted_.push_back({model, {w, hosted.blocks}, hosted.id, hosted.kv_bytes});
        ready.push_back(hosted.ready);
      }
    std::vector<size_t> order(hosted_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      if (ready[a] != ready[b]) return static_cast<bool>(ready[a]);
      if (hosted_[a].stage.worker != hosted_[b].stage.worker)
        return hosted_[a].stage.worker < hosted_[b].stage.worker;
      return hosted_[a].existing_id < hosted_[b].existing_id;
    });
    std::vector<PlannedInstance> sorted;
    for (size_t i : order) sorted.push_back(hosted_[i]);
    hosted_ = std::move(sorted);
  }

  // --- Every model one chain -------------------------------------------------------------------------

  void start_over() {
    room_.clear();
    for (int w = 0; w < view_.num_workers(); ++w) room_.push_back(view_.worker(w).capabilities.memory_bytes);
    crowd_.assign(view_.num_workers(), 0);
    assigned_.clear();
    assigned_on_.assign(view_.num_workers(), {});
    decisions_.assign(view_.num_models(), {});
  }

  int cover_in_order(const std::vector<int>& order, bool keep) {
    start_over();
    int covered = 0;
    for (int model : order) {
      decisions_[model] = decide(model, keep);
      for (const PlannedInstance& hop : decisions_[model].chosen.hops) assign(hop);
      for (const PlannedInstance& hop : decisions_[model].chosen.hops) ++crowd_[hop.stage.worker];
      covered += decisions_[model].chosen.ok();
    }
    return covered;
  }

  // Large models first; one that finds no room gets another try as the first, and with nothing kept.
  void cover_models() {
    std::vector<int> order(view_.num_models());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return view_.shape(a).needed_bytes(view_.shape(a).all()) >
             view_.shape(b).needed_bytes(view_.shape(b).all());
    });
    std::vector<std::pair<std::vector<int>, bool>> attempts = {{order, true}};
    int best_covered = cover_in_order(order, true);
    size_t best = 0, last = 0;
    if (best_covered < view_.num_models() && view_.num_models() > 1) {
      std::vector<int> uncovered;
      for (int model : order)
        if (!decisions_[model].chosen.ok()) uncovered.push_back(model);
      attempts.emplace_back(order, false);
      for (int model : uncovered) {
        std::vector<int> other = order;
        std::stable_partition(other.begin(), other.end(), [&](int m) { return m == model; });
        for (bool keep : {true, false}) attempts.emplace_back(other, keep);
      }
    }
    for (size_t i = 1; i < attempts.size() && best_covered < view_.num_models(); ++i) {
      last = i;
      if (const int covered = cover_in_order(attempts[i].first, attempts[i].second); covered > best_covered) {
        best_covered = covered;
        best = i;
      }
    }
    if (last != best) cover_in_order(attempts[best].first, attempts[best].second);
  }

  Decision decide(int model, bool keep) {
    Decision decision;
    if (view_.shape(model).num_blocks() == 0) return decision;
    const SearchResult found =
        search_stages(view_, {model, view_.shape(model).all(), free_workers_, room_, crowd_, -1, -1});
    decision.one = found.one;
    decision.cut = found.cut;
    if (!found.best().empty()) decision.fresh_chain = chain_of(model, found.best());
    // Pinned workers and what they leave open to others.
    if (auto pinned = pinned_instances(model); !pinned.empty()) {
      const Chain chain = build_chain(view_, {model, pinned, free_workers_, room_, crowd_});
      if (better(chain, decision.fresh_chain, 1)) decision.fresh_chain = chain;
    }
    if (keep) decision.kept_chain = kept_chain(model);
    decision.kept =
        decision.kept_chain.ok() && !better(decision.fresh_chain, decision.kept_chain, kHysteresis);
    decision.chosen = decision.kept ? decision.kept_chain : decision.fresh_chain;
    // A last resort: workers that shall not be relied on.
    if (!decision.chosen.ok() && keep) {
      decision.chosen = decision.kept_chain = continue_hosted(model, true);
      decision.kept = decision.chosen.ok();
    }
    return decision;
  }

  static bool better(const Chain& a, const Chain& b, double factor) {
    if (!a.ok() || !b.ok()) return a.ok();
    return a.predicted.token_s * factor < b.predicted.token_s;
  }

  Chain chain_of(int model, const std::vector<Stage>& route) {
    Chain chain;
    for (const Stage& stage : route) chain.hops.push_back(as_hosted({model, stage, {}, 0}));
    chain.predicted = view_.predict(model, route);
    return chain;
  }

  // The hosted instance that already is what is wanted, if there is one.
  PlannedInstance as_hosted(PlannedInstance wanted) const {
    for (const PlannedInstance& hosted : hosted_)
      if (hosted.model == wanted.model && hosted.stage.worker == wanted.stage.worker &&
          hosted.stage.blocks == wanted.stage.blocks && hosted.bytes(view_) <= room_[hosted.stage.worker])
        return hosted;
    return wanted;
  }

  std::vector<PlannedInstance> pinned_instances(int model) const {
    std::vector<PlannedInstance> result;
    for (int w = 0; w < view_.num_workers(); ++w)
      if (pins_[w].model == model && view_.worker(w).accepts)
        result.push_back(as_hosted({model, {w, pins_[w].blocks}, {}, 0}));
    return result;
  }

  Chain kept_chain(int model) { return continue_hosted(model, false); }

  // What is hosted, completed: by idle workers, else by any that has room; with as many of the replicas as
  // leave room for that.
  Chain continue_hosted(int model, bool rely_on_all) {
    std::vector<PlannedInstance> given;
    for (const PlannedInstance& hosted : hosted_)
      if (hosted.model == model && (rely_on_all || view_.worker(hosted.stage.worker).accepts))
        given.push_back(hosted);
    if (given.empty()) return {};
    for (const PlannedInstance& pinned : pinned_instances(model))
      if (pinned.existing_id.empty()) given.push_back(pinned);
    std::vector<int> idle;
    for (int w : free_workers_)
      if (view_.worker(w).hosted.empty() && crowd_[w] == 0) idle.push_back(w);
    for (const auto& fixed : {given, widest_cover(given, view_.shape(model).num_blocks())}) {
      const Chain by_idle = build_chain(view_, {model, fixed, idle, room_, crowd_});
      const Chain by_any = build_chain(view_, {model, fixed, free_workers_, room_, crowd_});
      if (by_any.ok() || by_idle.ok()) return better(by_any, by_idle, kHysteresis) ? by_any : by_idle;
    }
    return {};
  }

  // --- What is left --------------------------------------------------------------------------------------

  void assign(const PlannedInstance& instance) {
    std::vector<size_t>& same_worker = assigned_on_[instance.stage.worker];
    for (size_t other : same_worker)
      if (!instance.existing_id.empty() && assigned_[other].existing_id == instance.existing_id) return;
    room_[instance.stage.worker] -= std::min(room_[instance.stage.worker], instance.bytes(view_));
    same_worker.push_back(assigned_.size());
    assigned_.push_back(instance);
  }

  bool can_take(const PlannedInstance& instance) const {
    if (instance.bytes(view_) > room_[instance.stage.worker]) return false;
    const std::vector<size_t>& same_worker = assigned_on_[instance.stage.worker];
    return std::none_of(same_worker.begin(), same_worker.end(), [&](size_t other) {
      return assigned_[other].model == instance.model &&
             overlap(assigned_[other].stage.blocks, instance.stage.blocks);
    });
  }

  void keep_the_rest() {
    // Those of further routes count on one another.
    std::vector<PlannedInstance> rest = assigned_;
    rest.insert(rest.end(), hosted_.begin(), hosted_.end());
    std::vector<bool> useful(rest.size(), false);
    for (int model = 0; model < view_.num_models(); ++model) {
      const std::vector<bool> chained = on_some_chain(rest, model, view_.shape(model).num_blocks());
      for (size_t i = 0; i < rest.size(); ++i) useful[i] = useful[i] || chained[i];
    }
    const size_t first = assigned_.size();
    for (size_t i = first; i < rest.size(); ++i) {
      const bool is_pinned = view_.worker(rest[i].stage.worker).capabilities.pinned_blocks.has_value();
      if ((useful[i] || is_pinned) && can_take(rest[i])) assign(rest[i]);
    }
  }

  void place_unused_pins() {
    for (int w = 0; w < view_.num_workers(); ++w) {
      const PlannedInstance pinned{pins_[w].model, {w, pins_[w].blocks}, {}, 0};
      if (pinned.model >= 0 && view_.worker(w).accepts && can_take(pinned)) assign(pinned);
    }
  }

  void replicate() {
    std::vector<bool> busy(view_.num_workers(), false);
    for (const PlannedInstance& instance : assigned_) busy[instance.stage.worker] = true;
    std::vector<int> idle;
    for (int w : free_workers_)
      if (!busy[w]) idle.push_back(w);
    std::stable_sort(idle.begin(), idle.end(), [&](int a, int b) {
      return view_.worker(a).capabilities.decode_bytes_per_s >
             view_.worker(b).capabilities.decode_bytes_per_s;
    });
    for (int model = 0; model < view_.num_models(); ++model)
      for (const PlannedInstance& hop : decisions_[model].chosen.hops) add_range(model, hop.stage.blocks);
    idle = replicate_ranges(idle);
    // Those too small for every range serve a model together, in smaller pieces, which the others replicate.
    for (int i = 0; i < kFurtherRoutes && add_further_route(idle); ++i) idle = replicate_ranges(idle);
  }

  // A range that workers replicate.
  struct Range {
    int model;
    BlockRange blocks;
    double throughput;  // of all that hold it, per demand
  };

  void add_range(int model, BlockRange blocks) {
    ranges_.push_back({model, blocks, 0});
    for (const PlannedInstance& instance : assigned_) add_throughput(ranges_.back(), instance);
  }

  void add_throughput(Range& range, const PlannedInstance& instance) const {
    if (range.model == instance.model && instance.stage.blocks == range.blocks)
      range.throughput +=
          view_.throughput(range.model, {instance.stage.worker, range.blocks}, kRankingBatch) /
          std::max(view_.shape(range.model).shape().demand, 1e-6);
  }

  // Each of `idle` takes the scarcest range that fits it; the rest comes back.
  std::vector<int> replicate_ranges(const std::vector<int>& idle) {
    std::vector<int> rest;
    for (int w : idle) {
      const Range* scarcest = nullptr;
      for (const Range& range : ranges_)
        if (view_.shape(range.model).needed_bytes(range.blocks) <= room_[w] &&
            (!scarcest || range.throughput < scarcest->throughput))
          scarcest = &range;
      if (!scarcest) {
        rest.push_back(w);
        continue;
      }
      const PlannedInstance replica{scarcest->model, {w, scarcest->blocks}, {}, 0};
      assign(replica);
      for (Range& range : ranges_) add_throughput(range, replica);
    }
    return rest;
  }

  bool add_further_route(std::vector<int>& idle) {
    std::vector<int> models, sorted = idle;
    std::sort(sorted.begin(), sorted.end());
    for (int model = 0; model < view_.num_models(); ++model)
      if (decisions_[model].chosen.ok()) models.push_back(model);
    std::stable_sort(models.begin(), models.end(), [&](int a, int b) {
      return view_.shape(a).shape().demand > view_.shape(b).shape().demand;
    });
    for (int model : models) {
      const auto found =
          search_stages(view_, {model, view_.shape(model).all(), sorted, room_, crowd_, -1, -1});
      if (found.best().empty()) continue;
      for (const Stage& stage : found.best()) {
        assign({model, stage, {}, 0});
        std::erase(idle, stage.worker);
      }
      for (const Stage& stage : found.best()) add_range(model, stage.blocks);
      return true;
    }
    return false;
  }

  // --- KV and figures ------------------------------------------------------------------------------------

  int holders(const PlannedInstance& of) const {
    int count = 0;
    for (const PlannedInstance& other : assigned_)
      count += other.model == of.model && other.stage.blocks == of.stage.blocks;
    return count;
  }

  std::vector<uint64_t> share_kv() const {
    std::vector<uint64_t> kv(assigned_.size());
    std::vector<std::vector<size_t>> of_worker(view_.num_workers());
    std::vector<uint64_t> spare = room_;
    for (size_t i = 0; i < assigned_.size(); ++i) {
      const PlannedInstance& instance = assigned_[i];
      kv[i] = std::max(instance.kv_bytes, view_.shape(instance.model).min_kv_bytes(instance.stage.blocks));
      if (instance.kv_bytes == 0) of_worker[instance.stage.worker].push_back(i);
    }
    const std::vector<uint64_t> lone = lone_range_bytes();
    for (int w = 0; w < view_.num_workers(); ++w) {
      if (of_worker[w].empty()) continue;
      const bool may_take_over = !view_.worker(w).capabilities.pinned_blocks;
      if (may_take_over && lone[w] <= spare[w] / 2) spare[w] -= lone[w];
      double weights = 0;
      for (size_t i : of_worker[w]) weights += kv_weight(assigned_[i]);
      for (size_t i : of_worker[w]) {
        const ShapeIndex& shape = view_.shape(assigned_[i].model);
        const int64_t most_tokens = std::max<int64_t>(
            int64_t{kMostFullContexts} * std::max(shape.shape().context_length, 1), shape.context_needed());
        const uint64_t most = shape.kv_bytes(assigned_[i].stage.blocks, most_tokens);
        const double share = weights > 0 ? kv_weight(assigned_[i]) / weights : 0;
        // A little less than the share, which is rounded: the sum must not exceed the room.
        const auto extra = static_cast<uint64_t>(static_cast<double>(spare[w]) * share * (1 - 1e-9));
        kv[i] = std::min(most, kv[i] + extra);
      }
    }
    return kv;
  }
  double kv_weight(const PlannedInstance& instance) const {
    const ModelShape& shape = view_.shape(instance.model).shape();
    return std::max(shape.demand, 1e-6) * static_cast<double>(shape.kv_bytes_per_token) *
           instance.stage.blocks.size();
  }

  // What each worker would need to take over the largest range that one other worker hosts alone.
  std::vector<uint64_t> lone_range_bytes() const {
    struct Lone {
      uint64_t bytes = 0;
      int worker = -1;
    };
    Lone first, second;  // the two largest, of different workers
    // Ranges are few where workers are many: count the holders of each distinct range once.
    std::map<std::tuple<int, int, int>, int> counted;
    for (const PlannedInstance& instance : assigned_) {
      const auto key =
          std::make_tuple(instance.model, instance.stage.blocks.first, instance.stage.blocks.last);
      auto [slot, is_new] = counted.try_emplace(key, 0);
      if (is_new) slot->second = holders(instance);
      if (slot->second > 1) continue;
      const Lone lone{view_.shape(instance.model).needed_bytes(instance.stage.blocks), instance.stage.worker};
      if (lone.bytes > first.bytes) {
        if (lone.worker != first.worker) second = first;
        first = lone;
      } else if (lone.worker != first.worker && lone.bytes > second.bytes) {
        second = lone;
      }
    }
    std::vector<uint64_t> result(view_.num_workers(), first.bytes);
    if (first.worker >= 0) result[first.worker] = second.bytes;
    return result;
  }

  // Tokens/s of all instances together: the scarcest piece bounds it.
  double throughput(int model, const std::vector<uint64_t>& kv) const {
    std::vector<PlannedInstance> mine;
    std::vector<double> batches;
    const std::vector<bool> useful = on_some_chain(assigned_, model, view_.shape(model).num_blocks());
    std::vector<int> instances_of(view_.num_workers(), 0);
    for (size_t i = 0; i < assigned_.size(); ++i) {
      ++instances_of[assigned_[i].stage.worker];
      if (!useful[i]) continue;
      const uint64_t one = std::max<uint64_t>(view_.shape(model).min_kv_bytes(assigned_[i].stage.blocks), 1);
      mine.push_back(assigned_[i]);
      batches.push_back(std::clamp(static_cast<double>(kv[i] / one), 1.0, kMostBatch));
    }
    const std::vector<int> bounds = range_boundaries(mine, view_.shape(model).num_blocks());
    double least = std::numeric_limits<double>::infinity();
    for (size_t piece = 0; piece + 1 < bounds.size(); ++piece) {
      double sum = 0;
      for (size_t i = 0; i < mine.size(); ++i)
        if (contains(mine[i].stage.blocks, {bounds[piece], bounds[piece + 1]}))
          sum += view_.throughput(model, mine[i].stage, batches[i]) / instances_of[mine[i].stage.worker];
      least = std::min(least, sum);
    }
    return std::isfinite(least) ? least : 0;
  }

  Plan describe_plan() {
    Plan plan;
    const std::vector<uint64_t> kv = share_kv();
    for (size_t i = 0; i < assigned_.size(); ++i)
      plan.assignments.push_back({view_.worker(assigned_[i].stage.worker).name,
                                  view_.shape(assigned_[i].model).shape().name, assigned_[i].stage.blocks,
                                  kv[i], assigned_[i].existing_id});
    std::stable_sort(plan.assignments.begin(), plan.assignments.end(), [](auto& a, auto& b) {
      return std::tie(a.worker, a.model, a.blocks.first) < std::tie(b.worker, b.model, b.blocks.first);
    });
    for (int model = 0; model < view_.num_models(); ++model) {
      ModelPlan& result = plan.models.emplace_back();
      result.model = view_.shape(model).shape().name;
      const Decision& decision = decisions_[model];
      if (!decision.chosen.ok()) {
        result.reason = reason_uncovered(view_, model, free_workers_, room_);
        continue;
      }
      for (const Stage& stage : decision.chosen.route()) {
        result.cuts.push_back(stage.blocks);
        result.best_route.push_back(view_.worker(stage.worker).name);
      }
      const Prediction& predicted = decision.chosen.predicted;
      result.tokens_per_s = predicted.token_s > 0 ? 1 / predicted.token_s : 0;
      result.ttft_s = predicted.ttft_s;
      result.max_tokens_per_s = throughput(model, kv);
      result.reason = reason_of(view_, model, decision);
    }
    return plan;
  }

  PlacementView view_;
  std::vector<Pin> pins_;                // [num_workers]
  std::vector<PlannedInstance> hosted_;  // ready ones first, then by worker and id
  std::vector<int> free_workers_;        // take any range
  std::vector<uint64_t> room_;           // [num_workers]
  std::vector<int> crowd_;
  std::vector<PlannedInstance> assigned_;
  std::vector<std::vector<size_t>> assigned_on_;  // [num_workers] indices in assigned_
  std::vector<Decision> decisions_;               // [num_models]
  std::vector<Range> ranges_;
};

}  // namespace

Plan place(const ClusterSnapshot& snapshot) {
  return Planner(snapshot).run();
}

}  // namespace tessera::control
