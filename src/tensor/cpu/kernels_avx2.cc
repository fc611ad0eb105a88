// The kernels compiled for one instruction set; see kernel_table.h.
#include "tensor/cpu/kernel_table.h"
#include "tensor/cpu/simd_avx2.h"

#define TESSERA_ISA avx2
// Each builds on the ones before.
// clang-format off
#include "tensor/cpu/kernels/math.inc"
#include "tensor/cpu/kernels/rows.inc"
#include "tensor/cpu/kernels/matmul.inc"
#include "tensor/cpu/kernels/attention.inc"
#include "tensor/cpu/kernels/table.inc"
// clang-format on

namespace tessera::tensor {

const KernelTable& avx2_kernels() {
  return avx2::kTable;
}

}  // namespace tessera::tensor
