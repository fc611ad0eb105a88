#include "cluster/replay.h"

#include <algorithm>

#include "core/types.h"

namespace tessera::cluster {

std::vector<HopStart> plan_starts(std::span<const HopState> hops, int tokens) {
  std::vector<HopStart> starts(hops.size());
  int needed = tokens - 1;  // first row that the hop at hand must hand on: the tail samples after the last
  for (size_t i = hops.size(); i-- > 0;) {
    const bool is_tail = i + 1 == hops.size();
    const int cached = std::clamp(hops[i].cached, 0, is_tail ? tokens - 1 : tokens);
    HopStart& hop = starts[i];
    hop.start = cached;
    const bool must_repeat = !is_tail && needed < cached;
    // Shared KV pages are cut at block boundaries only.
    if (must_repeat && hops[i].outputs_from > needed) hop.start = needed / kKvBlockTokens * kKvBlockTokens;
    hop.send_from = is_tail ? hop.start : needed;
    needed = hop.start;
  }
  return starts;
}

}  // namespace tessera::cluster
