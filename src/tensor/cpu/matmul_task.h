// Matmuls over packed matrices cut into tasks; shared by the matmul and the mixture-of-experts op.
#pragma once

#include <vector>

#include "tensor/cpu/packed_matrix.h"

namespace tessera::tensor {

// Rows of activations in the forms that a matrix may need.
struct MatmulInput {
  const float* x = nullptr;  // [rows], x_stride elements apart
  int64_t x_stride = 0;
  QuantRows quant;
};

// Owns int8 activations of up to `rows` rows of `groups` groups; grows, never shrinks.
class QuantBuffer {
 public:
  void reserve(int64_t rows, int64_t groups);
  QuantRows rows(int64_t groups) const;
  static QuantRows at_row(const QuantRows& rows, int64_t row);

 private:
  int64_t capacity_groups_ = 0;
  AlignedMemory q_, scale_, scaled_sum_, sum16_;
};

// Runs of at most `width` panels of one segment; every run is a task that any thread may take.
struct PanelRuns {
  PanelRuns(const PackedMatrix& matrix, int width);
  struct Run {
    const PackedMatrix::Segment* segment;
    int64_t panel;
    int panels;
  };
  Run at(int64_t index) const;
  int64_t count = 0;

 private:
  const PackedMatrix* matrix_;
  int width_;
};
constexpr int kMaxRunPanels = 4;
// Panels of a run that keep `threads` threads evenly busy.
int run_width(const PackedMatrix& matrix, int threads);

// out[r, n] = x[r] · w[n] (+ bias[n]) for the run's columns n and rows [0, rows).
void matmul_run(const KernelTable& kernels, const PanelRuns::Run& run, const MatmulInput& input, int64_t rows,
                const float* bias, float* out, int64_t out_stride);

}  // namespace tessera::tensor
