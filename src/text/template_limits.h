// Bounds on one rendering of a chat template.
#pragma once

#include <chrono>
#include <cstdint>

namespace tessera::text {

struct TemplateLimits {
  int64_t max_steps = 20'000'000;            // evaluated nodes, loop items, blocks of copied bytes
  uint64_t max_output_bytes = 64ull << 20;   // of the rendered text
  uint64_t max_memory_bytes = 256ull << 20;  // live values, unfinished text and the output together
  int max_depth = 200;                       // macro calls inside each other, containers inside each other
  std::chrono::milliseconds max_time{2000};
};

}  // namespace tessera::text
