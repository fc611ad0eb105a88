// Counts the heap that some code holds: what was allocated while `on`, wherever it is freed.
#pragma once

#include <cstdint>

namespace tessera::sim {

// A program that links heap_meter.cc has its operators new and delete. One thread.
struct HeapMeter {
  static bool on;
  static int64_t bytes;
};

}  // namespace tessera::sim
