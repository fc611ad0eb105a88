#include "app/plan_ahead.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "app/model_shape.h"
#include "base/config.h"
#include "control/plan_text.h"

namespace tessera::app {
namespace {

constexpr const char* kWorkerForm =
    "--worker takes NAME:MEMORY[:READ[:COMPUTE]], e.g. attic:24GiB:900:80 (GB/s that it reads, TFLOP/s), "
    "not ";

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

Result<control::WorkerSnapshot> parse_worker(const std::string& text, const PlanAheadOptions& options) {
  const std::vector<std::string_view> parts = split(text);
  if (parts.size() < 2 || parts.size() > 4 || parts[0].empty()) return invalid_argument(kWorkerForm + text);
  control::WorkerSnapshot worker;
  worker.name = parts[0];
  TESSERA_ASSIGN_OR_RETURN(const ByteSize memory, parse_byte_size(parts[1]));
  worker.capabilities.memory_bytes = memory.bytes;
  const auto rate = [&](size_t index, double unit, double& into) -> Status {
    if (parts.size() <= index) return {};
    const std::string_view part = parts[index];
    double value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || !(value > 0) || value > 1e9)
      return invalid_argument(kWorkerForm + text);
    into = value * unit;
    return {};
  };
  TESSERA_RETURN_IF_ERROR(rate(2, 1e9, worker.capabilities.decode_bytes_per_s));
  TESSERA_RETURN_IF_ERROR(rate(3, 1e12, worker.capabilities.prefill_ops_per_s));
  worker.gateway_rtt_s = options.rtt_ms / 1e3;
  return worker;
}

}  // namespace

Result<PlanAhead> plan_ahead(const PlanAheadOptions& options) {
  if (options.model.empty()) return invalid_argument("say which model the workers would serve: --model M");
  if (!(options.rtt_ms >= 0) || !(options.mbit > 0))
    return invalid_argument("--rtt must not be negative, and --mbit must be above 0");
  PlanAhead ahead;
  control::ClusterSnapshot cluster;
  for (const std::string& text : options.workers) {
    TESSERA_ASSIGN_OR_RETURN(control::WorkerSnapshot worker, parse_worker(text, options));
    for (const control::WorkerSnapshot& other : cluster.workers) {
      if (other.name == worker.name) return invalid_argument("two workers are named " + worker.name);
      cluster.links[{worker.name, other.name}] = {options.rtt_ms / 1e3, options.mbit * 1e6 / 8};
    }
    ahead.assumed_speeds |=
        worker.capabilities.decode_bytes_per_s <= 0 || worker.capabilities.prefill_ops_per_s <= 0;
    cluster.workers.push_back(std::move(worker));
  }
  Status refused;
  for (const char* quantize : {"", "int8", "int4"}) {
    ModelOptions model;
    model.model = options.model;
    model.quantize = quantize;
    Result<OpenedModel> opened = open_model(model);
    if (!opened.ok() && *quantize == '\0') return opened.status();
    if (!opened.ok()) continue;  // stored in fewer bits already
    const int context = std::min(opened->context_length, options.context);
    TESSERA_ASSIGN_OR_RETURN(control::ModelShape shape, model_shape(*opened, context));
    PlanAhead::Format& format = ahead.formats.emplace_back();
    format.name = *quantize == '\0' ? "as stored" : quantize;
    format.weight_bytes = control::weight_bytes(shape, {0, shape.num_blocks});
    format.snapshot = cluster;
    format.snapshot.models = {std::move(shape)};
    format.plan = control::place(format.snapshot);
  }
  return ahead;
}

std::string plan_ahead_text(const PlanAhead& ahead) {
  std::string text;
  for (const PlanAhead::Format& format : ahead.formats) {
    text += fmt::format("{}{}: {} of weights, {}\n", text.empty() ? "" : "\n", format.name,
                        format_bytes(format.weight_bytes), format.fits() ? "fits" : "does not fit");
    text += control::plan_table(format.snapshot, format.plan);
  }
  text +=
      ahead.assumed_speeds
          ? "\nnothing here is measured, and of workers whose speed was not said a slow CPU's is assumed: "
            "their "
            "predictions say where blocks would lie, not how fast they would be\n"
          : "\nnothing here is measured: the predictions follow from the speeds and links that were said\n";
  return text;
}

Json plan_ahead_json(const PlanAhead& ahead) {
  Json formats = Json::array();
  for (const PlanAhead::Format& format : ahead.formats) {
    Json entry = control::plan_json(format.snapshot, format.plan);
    entry["format"] = format.name;
    entry["weight_bytes"] = format.weight_bytes;
    entry["fits"] = format.fits();
    formats.push_back(std::move(entry));
  }
  return {{"measured", false}, {"speeds_assumed", ahead.assumed_speeds}, {"formats", std::move(formats)}};
}

}  // namespace tessera::app
