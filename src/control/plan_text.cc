#include "control/plan_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/config.h"
#include "control/placement_model.h"

namespace tessera::control {
namespace {

const ModelShape* find_shape(const ClusterSnapshot& snapshot, const std::string& model) {
  for (const ModelShape& shape : snapshot.models)
    if (shape.name == model) return &shape;
  return nullptr;
}

uint64_t kv_tokens(const ModelShape* shape, const Assignment& assignment) {
  const uint64_t of_token =
      shape ? shape->kv_bytes_per_token * static_cast<uint64_t>(assignment.blocks.size()) : 0;
  return of_token == 0 ? 0 : assignment.kv_bytes / of_token;
}

// Columns as wide as their widest cell, two spaces between; the last column is not padded.
std::string align(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i)
      text += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    text += '\n';
  }
  return text;
}

}  // namespace

std::string plan_table(const ClusterSnapshot& snapshot, const Plan& plan) {
  const PlacementView view(snapshot);
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "MODEL", "BLOCKS", "WEIGHTS", "KV", "KV TOKENS", "STEP", "STATE"}};
  for (const Assignment& a : plan.assignments) {
    const ModelShape* shape = find_shape(snapshot, a.model);
    std::string step = "?";
    const int model = view.model_index(a.model);
    for (int w = 0; w < view.num_workers() && model >= 0; ++w)
      if (view.worker(w).name == a.worker)
        step = fmt::format("{:.2f} ms", 1e3 * view.decode_s(model, {w, a.blocks}));
    rows.push_back({a.worker, a.model, fmt::format("{}:{}", a.blocks.first, a.blocks.last),
                    shape ? format_bytes(weight_bytes(*shape, a.blocks)) : "?", format_bytes(a.kv_bytes),
                    std::to_string(kv_tokens(shape, a)), step, a.existing_id.empty() ? "to load" : "hosted"});
  }
  std::string text = rows.size() > 1 ? align(rows) : "no instance on any worker\n";
  for (const ModelPlan& model : plan.models) {
    if (model.cuts.empty()) {
      text += fmt::format("\n{}: not served\n  {}\n", model.model, model.reason);
      continue;
    }
    text += fmt::format(
        "\n{}: {:.3g} tok/s for one session, {:.3g} tok/s in all, first token of {} after {:.2g} s\n  {}\n",
        model.model, model.tokens_per_s, model.max_tokens_per_s, kPromptTokens, model.ttft_s, model.reason);
  }
  return text;
}

Json plan_json(const ClusterSnapshot& snapshot, const Plan& plan) {
  auto range = [](BlockRange blocks) { return Json::array({blocks.first, blocks.last}); };
  Json models = Json::array(), assignments = Json::array();
  for (const ModelPlan& model : plan.models) {
    Json route = Json::array();
    for (size_t i = 0; i < model.cuts.size() && i < model.best_route.size(); ++i)
      route.push_back({{"worker", model.best_route[i]}, {"blocks", range(model.cuts[i])}});
    models.push_back({{"model", model.model},
                      {"served", !model.cuts.empty()},
                      {"tokens_per_s", model.tokens_per_s},
                      {"max_tokens_per_s", model.max_tokens_per_s},
                      {"ttft_s", model.ttft_s},
                      {"reason", model.reason},
                      {"route", std::move(route)}});
  }
  for (const Assignment& a : plan.assignments) {
    const ModelShape* shape = find_shape(snapshot, a.model);
    assignments.push_back({{"worker", a.worker},
                           {"model", a.model},
                           {"blocks", range(a.blocks)},
                           {"weight_bytes", shape ? weight_bytes(*shape, a.blocks) : 0},
                           {"kv_bytes", a.kv_bytes},
                           {"kv_tokens", kv_tokens(shape, a)},
                           {"instance", a.existing_id.empty() ? Json() : Json(a.existing_id)}});
  }
  return {{"models", std::move(models)}, {"assignments", std::move(assignments)}};
}

}  // namespace tessera::control
