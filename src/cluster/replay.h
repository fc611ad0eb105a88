// Where each hop of a route begins when a session opens, and opens again after a failover, so that nobody
// computes twice what is still there (docs/architecture.md, "Failure").
#pragma once

#include <span>
#include <vector>

namespace tessera::cluster {

// What a hop said in Opened.
struct HopState {
  int cached = 0;        // KV of positions [0, cached) is valid
  int outputs_from = 0;  // outputs of [outputs_from, cached) are kept
};

// What it is told in StartSession.
struct HopStart {
  int start = 0;      // computes from here
  int send_from = 0;  // sends outputs from here; those before `start` are replayed. Tail: equal to `start`
  bool operator==(const HopStart&) const = default;
};

// `tokens`: prompt and committed output; the tail must get the last one's row to sample the next token. A hop
// replays when it kept what the next one lacks; where the outputs are gone it computes them again from its
// own inputs, at a block boundary, and so may ask its predecessor in turn. `hops` is in the order of the
// route; the result likewise.
std::vector<HopStart> plan_starts(std::span<const HopState> hops, int tokens);

}  // namespace tessera::cluster
