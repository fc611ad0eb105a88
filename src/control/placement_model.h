// What placement predicts: sizes of block ranges, time per token and time to the first token of a route.
// Internal to placement.
//
// A decode step of a range reads its weights once: bytes / decode_bytes_per_s. Prefill does two operations
// per parameter and token: ops / prefill_ops_per_s, in chunks that overlap between the stages. A hop costs
// half a round trip and the row's bytes; the tail's token goes back to the head.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "control/placement.h"

namespace tessera::control {

constexpr int kPromptTokens = 512;        // of the TTFT that plans carry
constexpr int kPrefillChunkTokens = 128;  // unit in which stages overlap

// A model's sizes as prefix sums.
class ShapeIndex {
 public:
  explicit ShapeIndex(const ModelShape& shape);

  const ModelShape& shape() const { return *shape_; }
  int num_blocks() const { return shape_->num_blocks; }
  BlockRange all() const { return {0, shape_->num_blocks}; }
  int context_needed() const { return context_needed_; }  // tokens of KV that an instance must have room for

  uint64_t weight_bytes(BlockRange range) const;
  uint64_t kv_bytes(BlockRange range, int64_t tokens) const;
  uint64_t min_kv_bytes(BlockRange range) const { return kv_bytes(range, context_needed_); }
  uint64_t needed_bytes(BlockRange range) const { return weight_bytes(range) + min_kv_bytes(range); }
  // The longest [first, x), x ≤ limit, that needs at most `room`; x = first if not even a block fits.
  int longest_from(int first, int limit, uint64_t room) const;
  // The longest [x, last), x ≥ limit, likewise.
  int longest_until(int last, int limit, uint64_t room) const;

  double decode_read_bytes(BlockRange range) const;  // what a decode step reads; the tail's LM head included
  double ops_per_token(BlockRange range) const;      // of prefill, without the LM head (last row only)
  // x in [range.first, range.last] whose blocks before it make up `bytes` of decode_read_bytes, nearest.
  int position_of_read(BlockRange range, double bytes) const;

 private:
  const ModelShape* shape_;
  std::vector<uint64_t> before_;  // [num_blocks + 1] bytes of the blocks before
  int context_needed_;
};

// A worker's part of a route.
struct Stage {
  int worker = 0;  // index in PlacementView
  BlockRange blocks;
};

struct Prediction {
  double token_s = 0;  // one session's time per token on an idle cluster
  double ttft_s = 0;   // kPromptTokens
};

// The snapshot by index, workers in the order of their names. Keeps references to it.
class PlacementView {
 public:
  explicit PlacementView(const ClusterSnapshot& snapshot);

  int num_workers() const { return static_cast<int>(workers_.size()); }
  int num_models() const { return static_cast<int>(shapes_.size()); }
  const WorkerSnapshot& worker(int index) const { return *workers_[index]; }
  const ShapeIndex& shape(int model) const { return shapes_[model]; }
  int model_index(const std::string& name) const;  // -1: unknown
  // Measured link, or what stands for it.
  const LinkSnapshot& link(int from, int to) const;

  double decode_s(int model, const Stage& stage) const;
  double prefill_s(int model, const Stage& stage, int tokens) const;
  // Weight bytes per second of decoding, as observed for this model or as measured.
  double decode_rate(int model, int worker) const { return 1 / decode_s_per_byte_[model][worker]; }
  // Tokens/s of an instance that decodes `batch` sessions together.
  double throughput(int model, const Stage& stage, double batch) const;

  // Time of one row from one worker to another; 0 on the same one.
  double row_s(int model, int from, int to) const;
  Prediction predict(int model, const std::vector<Stage>& route) const;

 private:
  std::vector<const WorkerSnapshot*> workers_;
  std::vector<ShapeIndex> shapes_;
  std::unordered_map<std::string, int> model_indices_;
  const std::map<std::pair<std::string, std::string>, LinkSnapshot>* links_;
  std::vector<std::vector<double>> decode_s_per_byte_, prefill_s_per_op_;  // [model][worker]
  mutable std::unordered_map<uint64_t, LinkSnapshot> link_cache_;
};

}  // namespace tessera::control
