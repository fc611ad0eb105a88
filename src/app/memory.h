// How much memory a load may use here.
#pragma once

#include <cstdint>

namespace tessera::app {

// Bytes that the kernel, and this process's control group, would still give.
uint64_t available_memory();

}  // namespace tessera::app
