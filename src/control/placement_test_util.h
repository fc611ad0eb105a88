// Snapshots for placement's tests.
#pragma once

#include <string>
#include <vector>

#include "control/placement.h"

namespace tessera::control {

constexpr uint64_t kGB = 1'000'000'000;

// 80 blocks, 141 GB in bf16, grouped-query KV of 8 heads.
inline ModelShape shape_70b(double bytes_per_parameter = 2) {
  ModelShape shape;
  shape.name = "llama-70b";
  shape.num_blocks = 80;
  const double factor = bytes_per_parameter / 2;
  shape.block_bytes.assign(80, static_cast<uint64_t>(1.711e9 * factor));
  shape.head_bytes = static_cast<uint64_t>(2.1e9 * factor);
  shape.tail_bytes = static_cast<uint64_t>(2.1e9 * factor);
  shape.kv_bytes_per_token = 4096;
  shape.row_bytes = 16384;
  shape.context_length = 8192;
  shape.min_context = 4096;
  shape.bytes_per_parameter = bytes_per_parameter;
  return shape;
}

// `num_blocks` blocks of 1 GB, 0.1 GB at each end, KV of 4 kB a token and block: 4 MB for min_context.
inline ModelShape plain_shape(const std::string& name, int num_blocks) {
  ModelShape shape;
  shape.name = name;
  shape.num_blocks = num_blocks;
  shape.block_bytes.assign(num_blocks, kGB);
  shape.head_bytes = shape.tail_bytes = kGB / 10;
  shape.kv_bytes_per_token = 4096;
  shape.row_bytes = 8192;
  shape.context_length = 4096;
  shape.min_context = 1024;
  return shape;
}

inline WorkerSnapshot worker(const std::string& name, double memory_gb, double decode_gb_per_s,
                             double prefill_tops = 10) {
  WorkerSnapshot result;
  result.name = name;
  result.capabilities.memory_bytes = static_cast<uint64_t>(memory_gb * 1e9);
  result.capabilities.decode_bytes_per_s = decode_gb_per_s * 1e9;
  result.capabilities.prefill_ops_per_s = prefill_tops * 1e12;
  result.gateway_rtt_s = 0.001;
  return result;
}

inline WorkerSnapshot hosting(WorkerSnapshot worker, const std::string& id, const std::string& model,
                              BlockRange blocks) {
  worker.hosted.push_back({id, model, blocks, true, 0, 0, 0});
  return worker;
}

// What the gateway would see after having carried the plan out.
inline void carry_out(const Plan& plan, ClusterSnapshot& snapshot) {
  static int next_id = 0;
  for (WorkerSnapshot& worker : snapshot.workers) {
    worker.hosted.clear();
    for (const Assignment& a : plan.assignments)
      if (a.worker == worker.name)
        worker.hosted.push_back({a.existing_id.empty() ? "i" + std::to_string(next_id++) : a.existing_id,
                                 a.model, a.blocks, true, a.kv_bytes, 0, 0});
  }
}

}  // namespace tessera::control
