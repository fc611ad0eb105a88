// What this machine can do at most, measured: the floors that a bench puts beside its figures.
#pragma once

namespace tessera::tensor {

struct MachineLimits {
  double read_gb_per_s = 0;    // streaming reads of memory well beyond the caches, all threads
  double fma_gflop_per_s = 0;  // float32 fused multiply-adds in registers, all threads, widest path
};
// Takes about a second. `threads` as for the backend.
MachineLimits measure_limits(int threads);

}  // namespace tessera::tensor
