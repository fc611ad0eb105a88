// What a seed decides: the same numbers on every platform, unlike the standard library's distributions.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "sim/event_queue.h"

namespace tessera::sim {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  // In [least, most].
  int64_t pick(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(engine_() % static_cast<uint64_t>(most - least + 1));
  }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  Time between(Time least, Time most) { return Time(pick(least.count(), most.count())); }
  template <typename T>
  const T& one_of(const std::vector<T>& values) {
    return values[static_cast<size_t>(pick(0, static_cast<int64_t>(values.size()) - 1))];
  }
  uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

// A hash over everything that happened: equal seeds must give equal hashes.
class Trace {
 public:
  void add(uint64_t value) {
    hash_ ^= value + 0x9e3779b97f4a7c15u + (hash_ << 6) + (hash_ >> 2);
    hash_ *= 0xff51afd7ed558ccdu;
    hash_ ^= hash_ >> 32;
  }
  void add(const std::string& text) {
    for (char c : text) add(static_cast<uint64_t>(static_cast<unsigned char>(c)));
  }
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace tessera::sim
