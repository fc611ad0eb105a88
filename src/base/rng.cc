#include "base/rng.h"

#include <random>

namespace tessera {

Philox philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t c[4] = {static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                   static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[1] = static_cast<uint32_t>(p1);
    c[3] = static_cast<uint32_t>(p0);
    c[0] = n0;
    c[2] = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c[0], c[1], c[2], c[3]}};
}

double uniform_at(uint64_t seed, uint32_t choice, uint64_t position) {
  const Philox r = philox(seed, position, choice);
  const uint64_t bits = (static_cast<uint64_t>(r.out[0]) << 32 | r.out[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

uint64_t system_entropy() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

}  // namespace tessera
