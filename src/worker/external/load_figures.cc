#include "worker/external/load_figures.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"

namespace tessera::worker::external {
namespace {

// Sum and count of a gauge's samples. `name` may end with a label that they must have:
// gauge{state="running"}.
struct Sum {
  double total = 0;
  int samples = 0;
};
Sum sum_of(std::string_view text, std::string_view name) {
  std::string_view label;
  if (const size_t brace = name.find('{'); brace != std::string_view::npos) {
    label = name.substr(brace + 1, name.size() - brace - 2);
    name = name.substr(0, brace);
  }
  Sum sum;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.starts_with(name)) continue;
    line.remove_prefix(name.size());
    if (line.empty() || (line[0] != '{' && line[0] != ' ')) continue;
    if (line[0] == '{') {
      const size_t close = line.rfind('}');
      if (close == std::string_view::npos || line.substr(0, close).find(label) == std::string_view::npos)
        continue;
      line.remove_prefix(close + 1);
    } else if (!label.empty()) {
      continue;
    }
    const double value = std::strtod(std::string(line.substr(0, 64)).c_str(), nullptr);
    if (!std::isfinite(value) || value < 0) continue;
    sum.total += value;
    ++sum.samples;
  }
  return sum;
}

std::optional<Sum> first_of(std::string_view text, const std::vector<const char*>& names) {
  for (const char* name : names)
    if (const Sum sum = sum_of(text, name); sum.samples > 0) return sum;
  return std::nullopt;
}

int as_count(double value) {
  return static_cast<int>(std::clamp(value, 0.0, 1e9));
}

LoadFigures read_prometheus(std::string_view text, const EngineProfile& profile) {
  LoadFigures load;
  if (const auto sum = first_of(text, profile.running)) load.running = as_count(sum->total);
  if (const auto sum = first_of(text, profile.waiting)) load.waiting = as_count(sum->total);
  // One gauge to an engine process: their mean.
  if (const auto sum = first_of(text, profile.kv_use))
    load.kv_use = std::clamp(sum->total / sum->samples, 0.0, 1.0);
  return load;
}

double number_at(const Json& object, const char* pointer) {
  const Json::json_pointer where(pointer);
  return object.contains(where) && object[where].is_number() ? object[where].get<double>() : -1;
}

LoadFigures read_trtllm(std::string_view text, const EngineProfile& profile) {
  LoadFigures load;
  const Result<Json> json = parse_json(text);
  if (!json.ok() || !json->is_array() || json->empty() || !json->back().is_object()) return load;
  const Json& last = json->back();
  const auto count = [&](const std::vector<const char*>& names) {
    const double value = names.empty() ? -1 : number_at(last, names[0]);
    return value < 0 ? -1 : as_count(value);
  };
  load.running = count(profile.running);
  load.waiting = count(profile.waiting);
  if (profile.kv_use.size() == 2) {
    const double used = number_at(last, profile.kv_use[0]), most = number_at(last, profile.kv_use[1]);
    if (used >= 0 && most > 0) load.kv_use = std::clamp(used / most, 0.0, 1.0);
  }
  return load;
}

}  // namespace

LoadFigures read_load(std::string_view text, const EngineProfile& profile) {
  switch (profile.metrics) {
    case MetricsFormat::kPrometheus:
      return read_prometheus(text, profile);
    case MetricsFormat::kTrtllmJson:
      return read_trtllm(text, profile);
    case MetricsFormat::kNone:
      break;
  }
  return {};
}

}  // namespace tessera::worker::external
