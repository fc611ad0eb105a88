// The mixture-of-experts op: routing, then every expert over the rows that chose it.
#pragma once

#include <functional>
#include <memory>

#include "tensor/cpu/matmul_task.h"
#include "tensor/cpu/step_recorder.h"

namespace tessera::tensor {

// Intermediate results of one moe op of a step; reused by the next one.
class MoeScratch {
 public:
  // Records the op. `x` [rows, hidden], `out` likewise; `matmul` records a plain matmul (for the router).
  void record(StepRecorder& recorder, const KernelTable& kernels, int threads, Tensor x,
              const MoeParams& params, Tensor out,
              const std::function<void(Tensor, const PackedMatrix&, Tensor)>& matmul);

 private:
  struct Buffers;
  struct Op;
  std::shared_ptr<Buffers> buffers_;  // ops that were recorded with smaller ones keep those
};

}  // namespace tessera::tensor
