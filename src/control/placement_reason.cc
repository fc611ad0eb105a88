#include "control/placement_reason.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/config.h"

namespace tessera::control {
namespace {

constexpr size_t kWorkersNamed = 6;  // of a route in a sentence

std::string describe_route(const PlacementView& view, const std::vector<Stage>& route) {
  std::string text;
  for (size_t i = 0; i < route.size(); ++i) {
    if (i == kWorkersNamed) return text + fmt::format(" and {} more", route.size() - i);
    text += fmt::format("{}{} {}:{}", i ? ", " : "", view.worker(route[i].worker).name, route[i].blocks.first,
                        route[i].blocks.last);
  }
  return text;
}

// "one worker alone, big: 41.0 tok/s, …" or "cut over 2 (a 0:20, b 20:30): …"
std::string describe_choice(const PlacementView& view, int model, const std::vector<Stage>& route) {
  const std::string figures = describe(view.predict(model, route));
  if (route.size() == 1)
    return fmt::format("one worker alone, {}: {}", view.worker(route[0].worker).name, figures);
  return fmt::format("cut over {} ({}): {}", route.size(), describe_route(view, route), figures);
}

std::string new_instances(const PlacementView& view, const Chain& chain) {
  std::string text;
  for (const PlannedInstance& hop : chain.hops) {
    if (!hop.existing_id.empty()) continue;
    const BlockRange blocks = hop.stage.blocks;
    text += fmt::format("{}blocks {}:{} go to {}", text.empty() ? "" : ", ", blocks.first, blocks.last,
                        view.worker(hop.stage.worker).name);
  }
  return text;
}

}  // namespace

std::string describe(const Prediction& predicted) {
  return fmt::format("{:.3g} tok/s, first token after {:.2g} s",
                     predicted.token_s > 0 ? 1 / predicted.token_s : 0.0, predicted.ttft_s);
}

std::string reason_of(const PlacementView& view, int model, const Decision& decision) {
  const std::vector<Stage> route = decision.chosen.route();
  std::string text = describe_choice(view, model, route);
  if (decision.kept) {
    text = "kept as loaded, " + text;
    if (const std::string added = new_instances(view, decision.chosen); !added.empty()) text += "; " + added;
    if (decision.fresh_chain.ok())
      text += fmt::format("; placed afresh ({}): {}, not better by a fifth",
                          describe_route(view, decision.fresh_chain.route()),
                          describe(decision.fresh_chain.predicted));
    else
      text += "; it could not be placed afresh";
  } else if (decision.kept_chain.ok()) {
    text = fmt::format("placed afresh, {}; as loaded ({}): {}", text,
                       describe_route(view, decision.kept_chain.route()),
                       describe(decision.kept_chain.predicted));
  }
  if (route.size() > 1) {
    if (decision.one.empty())
      text += fmt::format("; no worker alone has room for {}",
                          format_bytes(view.shape(model).needed_bytes(view.shape(model).all())));
    else
      text += "; " + describe_choice(view, model, decision.one);
  } else if (decision.cut.empty()) {
    text += "; there are no other workers to cut it over";
  } else {
    text += "; " + describe_choice(view, model, decision.cut);
  }
  return text;
}

std::string reason_uncovered(const PlacementView& view, int model, const std::vector<int>& candidates,
                             const std::vector<uint64_t>& room) {
  const ShapeIndex& shape = view.shape(model);
  if (shape.num_blocks() == 0) return "the model has no blocks";
  if (candidates.empty())
    return "no worker takes new blocks: none has joined, or all drain, cool down or are pinned";
  const uint64_t needed = shape.needed_bytes(shape.all());
  uint64_t available = 0;
  for (int worker : candidates) available += room[worker];
  std::string text =
      fmt::format("needs {} with room for {} tokens, the workers have {}: ", format_bytes(needed),
                  shape.context_needed(), format_bytes(available));
  if (needed > available)
    text += fmt::format("{} are missing", format_bytes(needed - available));
  else
    text += "in pieces too small for its blocks";

  struct Format {
    const char* name;
    double bytes_per_parameter;
  };
  std::string fitting, tried;
  for (const Format& format : {Format{"int8", 1.0625}, Format{"int4", 0.5625}}) {
    const double factor = format.bytes_per_parameter / std::max(shape.shape().bytes_per_parameter, 1e-3);
    if (factor > 0.95) continue;
    ModelShape smaller = shape.shape();
    for (uint64_t& bytes : smaller.block_bytes)
      bytes = static_cast<uint64_t>(static_cast<double>(bytes) * factor);
    smaller.head_bytes = static_cast<uint64_t>(static_cast<double>(smaller.head_bytes) * factor);
    smaller.tail_bytes = static_cast<uint64_t>(static_cast<double>(smaller.tail_bytes) * factor);
    ClusterSnapshot alone;  // the same workers with what room they have, and this model only
    alone.models.push_back(std::move(smaller));
    std::vector<uint64_t> its_room;
    std::vector<int> its_workers;
    for (int worker : candidates) {
      WorkerSnapshot copy = view.worker(worker);
      copy.hosted.clear();
      alone.workers.push_back(std::move(copy));
      its_workers.push_back(static_cast<int>(its_workers.size()));
      its_room.push_back(room[worker]);
    }
    const PlacementView small_view(alone);
    const std::vector<int> crowd(its_workers.size(), 0);
    const ShapeIndex& small_shape = small_view.shape(0);
    const bool fits = !search_stages(small_view, {0, small_shape.all(), its_workers, its_room, crowd, -1, -1})
                           .best()
                           .empty();
    const std::string size =
        fmt::format("{} ({})", format.name, format_bytes(small_shape.needed_bytes(small_shape.all())));
    (fits ? fitting : tried) += ((fits ? fitting : tried).empty() ? "" : " or ") + size;
  }
  if (!fitting.empty())
    text += "; it would fit as " + fitting;
  else if (!tried.empty())
    text += "; not even as " + tried + " does it fit";
  return text;
}

}  // namespace tessera::control
