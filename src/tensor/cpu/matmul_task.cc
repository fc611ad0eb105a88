#include "tensor/cpu/matmul_task.h"

#include <algorithm>

namespace tessera::tensor {

void QuantBuffer::reserve(int64_t rows, int64_t groups) {
  const int64_t wanted = rows * groups;
  if (wanted <= capacity_groups_) return;
  const auto make = [&](int64_t bytes_a_group) {
    auto memory = AlignedMemory::allocate(static_cast<uint64_t>(wanted * bytes_a_group));
    TESSERA_CHECK(memory.ok(), "no memory for activations");
    return std::move(memory).value();
  };
  q_ = make(kGroup);
  scale_ = make(8);
  scaled_sum_ = make(4);
  sum16_ = make(8);
  capacity_groups_ = wanted;
}

QuantRows QuantBuffer::rows(int64_t groups) const {
  return {reinterpret_cast<int8_t*>(q_.data()), reinterpret_cast<float*>(scale_.data()),
          reinterpret_cast<float*>(scaled_sum_.data()), reinterpret_cast<int32_t*>(sum16_.data()), groups};
}

QuantRows QuantBuffer::at_row(const QuantRows& rows, int64_t row) {
  const int64_t first = row * rows.groups;
  return {rows.q + first * kGroup, rows.scale + first * 2, rows.scaled_sum + first, rows.sum16 + first * 2,
          rows.groups};
}

PanelRuns::PanelRuns(const PackedMatrix& matrix, int width) : matrix_(&matrix), width_(width) {
  for (const auto& segment : matrix.segments()) count += (segment.panels() + width - 1) / width;
}

PanelRuns::Run PanelRuns::at(int64_t index) const {
  for (const auto& segment : matrix_->segments()) {
    const int64_t runs = (segment.panels() + width_ - 1) / width_;
    if (index < runs) {
      const int64_t first = index * width_;
      return {&segment, first, static_cast<int>(std::min<int64_t>(width_, segment.panels() - first))};
    }
    index -= runs;
  }
  TESSERA_CHECK(false, "run index past the matrix");
  return {};
}

int run_width(const PackedMatrix& matrix, int threads) {
  const int64_t panels = (matrix.n() + kPanelRows - 1) / kPanelRows;
  return static_cast<int>(std::clamp<int64_t>(panels / (threads * 4), 1, kMaxRunPanels));
}

void matmul_run(const KernelTable& kernels, const PanelRuns::Run& run, const MatmulInput& input, int64_t rows,
                const float* bias, float* out, int64_t out_stride) {
  alignas(64) float tile[kMaxRunPanels * kMaxTaskRows * kPanelRows];
  const PackedMatrix::Segment& segment = *run.segment;
  MatmulCall call;
  call.kind = segment.kind;
  call.layout = segment.layout;
  call.panels = segment.memory.data() + run.panel * segment.layout.stride;
  call.panel_count = run.panels;
  call.tile = tile;
  call.x_stride = input.x_stride;
  for (int64_t first = 0; first < rows; first += kMaxTaskRows) {
    call.rows = static_cast<int>(std::min<int64_t>(kMaxTaskRows, rows - first));
    if (is_float_kind(segment.kind)) {
      call.x = input.x + first * input.x_stride;
    } else {
      call.quant = QuantBuffer::at_row(input.quant, first);
    }
    kernels.matmul(call);
    for (int p = 0; p < run.panels; ++p) {
      const int64_t row_in_segment = (run.panel + p) * kPanelRows;
      const int64_t column = segment.first_row + row_in_segment;
      const int64_t valid = std::min<int64_t>(kPanelRows, segment.rows - row_in_segment);
      for (int r = 0; r < call.rows; ++r) {
        const float* from = tile + (static_cast<int64_t>(p) * call.rows + r) * kPanelRows;
        float* to = out + (first + r) * out_stride + column;
        if (bias == nullptr) {
          std::copy(from, from + valid, to);
        } else {
          for (int64_t i = 0; i < valid; ++i) to[i] = from[i] + bias[column + i];
        }
      }
    }
  }
}

}  // namespace tessera::tensor
