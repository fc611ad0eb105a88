// Tensor: a view of device memory with a shape. Buffer: the memory.
#pragma once

#include <cstdint>
#include <memory>

#include "base/dtype.h"

namespace tessera::tensor {

// Device memory, 64-byte aligned (256 on CUDA), freed with the object.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() = 0;  // a device address: only the CPU backend's may be dereferenced
  virtual uint64_t bytes() const = 0;
};

// A non-owning matrix view: [rows, cols], rows `stride` elements apart. Activations are float32 on the CPU
// backend.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* f32(int64_t row = 0) const { return static_cast<float*>(data) + row * stride; }
  Tensor slice_rows(int64_t first, int64_t count) const {
    Tensor t = *this;
    t.data = static_cast<uint8_t*>(data) + first * stride * dtype_info(dtype).bytes_per_block;
    t.rows = count;
    return t;
  }
  Tensor slice_cols(int64_t first, int64_t count) const {
    Tensor t = *this;
    t.data = static_cast<uint8_t*>(data) + first * dtype_info(dtype).bytes_per_block;
    t.cols = count;
    return t;
  }
};

}  // namespace tessera::tensor
