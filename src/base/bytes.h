// Bounds-checked little-endian reading of untrusted bytes (invariant I7).
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "base/status.h"

namespace tessera {

// Reads forward through a span that it does not own. After the first failed read every later one fails too.
class ByteReader {
 public:
  explicit ByteReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <typename T>
  Result<T> read() {
    static_assert(std::is_trivially_copyable_v<T>);
    if (remaining() < sizeof(T)) return truncated(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  // A view of the next `count` bytes, valid as long as the underlying bytes.
  Result<std::span<const uint8_t>> take(uint64_t count) {
    if (remaining() < count) return truncated(count);
    auto view = bytes_.subspan(offset_, count);
    offset_ += count;
    return view;
  }
  Result<std::string_view> take_string(uint64_t count) {
    TESSERA_ASSIGN_OR_RETURN(auto view, take(count));
    return std::string_view(reinterpret_cast<const char*>(view.data()), view.size());
  }

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

 private:
  Status truncated(uint64_t wanted) {
    Status status = corrupt("truncated: " + std::to_string(wanted) + " bytes wanted at offset " +
                            std::to_string(offset_) + ", " + std::to_string(remaining()) + " left");
    offset_ = bytes_.size();
    return status;
  }
  std::span<const uint8_t> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace tessera
