// What this machine can do at most, measured: the floors that a bench puts beside its figures.
#pragma once

namespace tessera::tensor {

struct MachineLimits {
  double read_gb_per_s = 0;    // streaming reads of memory well beyond the caches, all threads
  double fma_gflop_per_s = 0;  // float32 fused multiply-adds in registers, all threads, widest path
  double int8_gop_per_s = 0;   // likewise int8 dot products: vpdpbusd, or vpmaddubsw and what widens its sums
  double bf16_gflop_per_s = 0;  // likewise vdpbf16ps; 0 where the processor has none
};
// Takes about a second. `threads` as for the backend.
MachineLimits measure_limits(int threads);

}  // namespace tessera::tensor
