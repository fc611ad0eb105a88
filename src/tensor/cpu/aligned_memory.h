// Zero-filled memory, 64-byte aligned; large pieces come in whole pages, huge ones where the system has them.
#pragma once

#include <cstdint>
#include <utility>

#include "base/status.h"

namespace tessera::tensor {

class AlignedMemory {
 public:
  AlignedMemory() = default;
  static Result<AlignedMemory> allocate(uint64_t bytes);
  AlignedMemory(AlignedMemory&& other) noexcept { *this = std::move(other); }
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~AlignedMemory();

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace tessera::tensor
