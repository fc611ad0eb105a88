// Counter-based random numbers: the n-th number of a stream is a pure function of (seed, choice, position),
// so a sampled token does not depend on batching, routes or failover (invariant I1).
#pragma once

#include <cstdint>

namespace tessera {

// Philox-4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
struct Philox {
  uint32_t out[4];
};
Philox philox(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// Uniform in [0, 1), 53 bits.
double uniform_at(uint64_t seed, uint32_t choice, uint64_t position);

// 64 bits of the operating system's entropy: for what nobody may guess, or two processes draw alike.
uint64_t system_entropy();

}  // namespace tessera
