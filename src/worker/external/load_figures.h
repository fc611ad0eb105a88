// How busy an engine is, by its own metrics.
#pragma once

#include <string_view>

#include "worker/external/profile.h"

namespace tessera::worker::external {

// -1: it does not say.
struct LoadFigures {
  int running = -1;
  int waiting = -1;
  double kv_use = -1;
  bool operator==(const LoadFigures&) const = default;
};

// Of the text that `profile.metrics_path` answers. What cannot be read is not there.
LoadFigures read_load(std::string_view text, const EngineProfile& profile);

}  // namespace tessera::worker::external
