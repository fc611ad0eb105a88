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
  // Weight bytes of a parameter that a token uses: parameters = bytes / this. 2 for bf16, 1.06 for int8, 0.56
  // for int4 (their scales included); of a mixture of experts larger, as a token passes few of its weights.
  double bytes_per_parameter = 2;
};

// Bytes of the weights of a range, shared embeddings counted once; 0 if the shape has no such range.
uint64_t weight_bytes(const ModelShape& shape, BlockRange blocks);

struct WorkerSnapshot {
  std::string name;
  WorkerCapabilities capabilities;
  bool accepts = true;  // false: draining or in its cool-down: keeps what it hosts, gets nothing new
  struct Hosted {
    std::string id;  // instance
    std::string model;
    BlockRange blocks;
    bool ready = false;
    uint64_t kv_bytes = 0;  // that its KV pool holds now; 0: unknown, counted as min_context's
    // Observed; they refine what the worker measured at its join. 0: not yet.
    double decode_step_s = 0;
    double prefill_token_s = 0;
  };
  std::vector<Hosted> hosted;
  double gateway_rtt_s = 0;
};

// Round trip and rate between two workers. A direction that was not measured gets the other's values, a pair
// that was not measured the worse of both gateway round trips and 100 Mbit/s.
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
  bool operator==(const Assignment&) const = default;
};

struct ModelPlan {
  std::string model;
  // What the hops of best_route execute: covers [0, num_blocks) in order. Each is an assignment of its
  // worker, whole: an engine executes its range and no part of it. Empty: cannot be served, `reason` says
  // why.
  std::vector<BlockRange> cuts;
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

// Deterministic, whatever the order of workers. In order of weight:
// - every model is covered that can be covered; hosted instances that leave no room for that are left out of
//   the assignments, which means: unload;
// - pinned workers host their range and nothing else; workers that do not accept get nothing new, and are
//   relied on only where nobody else covers a range;
// - what is hosted is kept if its range is on a chain of whole ranges, and a lost range goes to an idle
//   worker, else to one that hosts another range already, unless a plan from scratch is better by more than a
//   fifth;
// - from scratch: contiguous ranges, the cut of least predicted time per token under everybody's memory; a
//   model that fits on one worker is cut only where the cut is faster; of cuts within 5 % the one of more
//   throughput;
// - an idle worker replicates the scarcest range that fits it; those that no range fits form further routes.
// KV: what weights leave free, shared by demand, at most 64 full contexts; room to take over the largest
// range that another worker hosts alone is spared where that costs at most half of it. O(models × workers ×
// (log workers + cuts)); links are looked up among few candidates only.
Plan place(const ClusterSnapshot& snapshot);

}  // namespace tessera::control
