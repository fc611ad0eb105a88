// Placement: which worker hosts which block range of which model. A pure function of a snapshot, so that the
// gateway, `tessera plan` and the simulator run the same code.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/control_messages.h"
#include "core/types.h"

namespace tessera::control {

// What placement must know of a model; bytes as held in memory by a worker.
struct ModelShape {
  std::string name;
  int num_blocks = 0;
  std::vector<uint64_t> block_bytes;  // [num_blocks]
  uint64_t head_bytes = 0;            // embedding, with block 0
  uint64_t tail_bytes = 0;            // final norm and LM head, with the last block (shared with the head's
                                      // embedding where one worker holds both: counted once)
  bool tied_embedding = false;
  uint64_t kv_bytes_per_token = 0;  // of one block
  uint64_t row_bytes = 0;           // of the residual stream of one token
  int context_length = 0;
  int min_context = 0;  // KV room that an instance must have, in tokens
  double demand = 1.0;  // share of memory when several models compete, relative
};

struct WorkerSnapshot {
  std::string name;
  WorkerCapabilities capabilities;
  bool accepts = true;  // false: draining or in its cool-down: keeps what it hosts, gets nothing new
  struct Hosted {
    std::string id;  // instance
    std::string model;
    BlockRange blocks;
    bool ready = false;
  };
  std::vector<Hosted> hosted;
  double gateway_rtt_s = 0;
};

// Round trip and rate between two workers; a pair that was not measured gets the worse of both gateway links.
struct LinkSnapshot {
  double rtt_s = 0;
  double bytes_per_s = 0;
};

struct ClusterSnapshot {
  std::vector<ModelShape> models;
  std::vector<WorkerSnapshot> workers;
  std::map<std::pair<std::string, std::string>, LinkSnapshot> links;  // ordered pair of worker names
};

struct Assignment {
  std::string worker;
  std::string model;
  BlockRange blocks;
  uint64_t kv_bytes = 0;
  std::string existing_id;  // the hosted instance that is kept; empty: to be loaded
};

struct ModelPlan {
  std::string model;
  std::vector<BlockRange> cuts;         // empty: cannot be served, `reason` says why
  std::vector<std::string> best_route;  // workers, one for each cut: lowest latency
  double tokens_per_s = 0;              // of one session on best_route
  double max_tokens_per_s = 0;          // of all routes, many sessions
  double ttft_s = 0;                    // of a prompt of 512 tokens on an idle cluster
  // For people: the shape and why, with the prediction of the alternative ("one worker alone: 41 tok/s; cut
  // over 2: 18 tok/s").
  std::string reason;
};

struct Plan {
  std::vector<ModelPlan> models;
  std::vector<Assignment> assignments;
};

// Deterministic. Contiguous ranges; the fewest-latency cut that fits; workers left over replicate the
// scarcest range; an instance that is hosted already is kept unless the plan without it is better by a fifth.
// A model that fits on one worker is cut only where the cut is faster. O(models × workers log workers) beside
// the links' lookups.
Plan place(const ClusterSnapshot& snapshot);

}  // namespace tessera::control
