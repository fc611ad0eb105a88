// The protobuf wire format, field by field, for small files of unknown origin.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"

namespace tessera::text {

// Walks the fields of one message. The bytes must outlive it.
class ProtobufReader {
 public:
  struct Field {
    uint32_t number = 0;
    uint64_t value = 0;      // varint and fixed-size fields
    std::string_view bytes;  // strings, bytes, messages
    float as_float() const { return std::bit_cast<float>(static_cast<uint32_t>(value)); }
  };
  explicit ProtobufReader(std::string_view message) : rest_(message) {}

  bool at_end() const { return rest_.empty(); }
  // Corrupt when a field runs over the end or has a wire type that is not in use.
  Result<Field> next() {
    TESSERA_ASSIGN_OR_RETURN(const uint64_t key, varint());
    Field field;
    if (key >> 3 == 0 || key >> 3 > kMaxFieldNumber)
      return corrupt("protobuf: a field number is out of range");
    field.number = static_cast<uint32_t>(key >> 3);
    switch (key & 7) {
      case 0: {
        TESSERA_ASSIGN_OR_RETURN(field.value, varint());
        return field;
      }
      case 1:
        return fixed(field, 8);
      case 5:
        return fixed(field, 4);
      case 2: {
        TESSERA_ASSIGN_OR_RETURN(const uint64_t length, varint());
        if (length > rest_.size()) return corrupt("protobuf: a field is longer than its message");
        field.bytes = rest_.substr(0, length);
        rest_.remove_prefix(length);
        return field;
      }
      default:
        return corrupt("protobuf: wire type " + std::to_string(key & 7));
    }
  }

 private:
  static constexpr uint64_t kMaxFieldNumber = (1 << 29) - 1;

  Result<uint64_t> varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    return corrupt("protobuf: a number does not end");
  }
  Result<Field> fixed(Field field, size_t bytes) {
    if (rest_.size() < bytes) return corrupt("protobuf: a number runs over the end");
    for (size_t i = 0; i < bytes; ++i) field.value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
    rest_.remove_prefix(bytes);
    return field;
  }

  std::string_view rest_;
};

}  // namespace tessera::text
