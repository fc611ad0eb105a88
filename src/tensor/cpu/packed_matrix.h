// Weights packed for the CPU kernels: panels of 16 rows, one row a lane (see WeightKind).
#pragma once

#include <memory>
#include <vector>

#include "tensor/backend.h"
#include "tensor/cpu/aligned_memory.h"
#include "tensor/cpu/kernel_table.h"

namespace tessera::tensor {

class ThreadPool;

inline bool is_float_kind(WeightKind kind) {
  return kind <= WeightKind::kBF16;
}
std::string_view weight_kind_name(WeightKind kind);
PanelLayout panel_layout(WeightKind kind, int64_t k);

// Immutable.
class PackedMatrix final : public Matrix {
 public:
  // Rows [first_row, first_row + rows) of the matrix in one kind; pieces of different types stay apart.
  struct Segment {
    WeightKind kind = WeightKind::kF32;
    PanelLayout layout;
    int64_t first_row = 0;
    int64_t rows = 0;
    AlignedMemory memory;  // panels, the last one padded with zeros
    int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  };

  // Unsupported names a type that has no kernels; InvalidArgument a k that does not fit the type's blocks.
  static Result<std::unique_ptr<PackedMatrix>> pack(const MatrixSource& source, MatrixFormat format,
                                                    ThreadPool& pool);

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  uint64_t bytes() const override;
  std::string_view format() const override { return format_; }

  const std::vector<Segment>& segments() const { return segments_; }
  bool needs_float() const { return needs_float_; }  // some segment multiplies float activations
  bool needs_quant() const { return needs_quant_; }  // some segment multiplies int8 activations
  int64_t groups() const { return (k_ + kGroup - 1) / kGroup; }
  // The same values in float32 panels.
  Result<std::unique_ptr<PackedMatrix>> widened(ThreadPool& pool) const;
  // Row `n`, [k], exactly as packed.
  void read_row(int64_t n, float* out) const;

 private:
  int64_t n_ = 0;
  int64_t k_ = 0;
  bool needs_float_ = false;
  bool needs_quant_ = false;
  std::string format_;
  std::vector<Segment> segments_;
};

}  // namespace tessera::tensor
