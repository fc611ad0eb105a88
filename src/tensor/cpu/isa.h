// From an instruction set to its kernels.
#pragma once

#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/kernel_table.h"

namespace tessera::tensor {

// The kernels of a supported instruction set.
const KernelTable& kernels_for(Isa isa);

}  // namespace tessera::tensor
