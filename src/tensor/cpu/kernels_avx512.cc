// The kernels compiled for one instruction set; see kernel_table.h.
#include "tensor/cpu/kernel_table.h"
#include "tensor/cpu/simd_avx512.h"

#define TESSERA_ISA avx512
// Each builds on the ones before.
// clang-format off
#include "tensor/cpu/kernels/math.inc"
#include "tensor/cpu/kernels/rows.inc"
#include "tensor/cpu/kernels/matmul.inc"
#include "tensor/cpu/kernels/attention.inc"
#include "tensor/cpu/kernels/table.inc"
// clang-format on

namespace tessera::tensor {

const KernelTable& avx512_kernels() {
  return avx512::kTable;
}

}  // namespace tessera::tensor
