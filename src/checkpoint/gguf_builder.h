// Writes GGUF bytes for tests, also wrong ones.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::checkpoint {

class GgufBuilder {
 public:
  static constexpr uint32_t kU32 = 4, kF32 = 6, kBool = 7, kString = 8, kArray = 9;

  template <typename T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void put_string(std::string& out, std::string_view text) {
    put<uint64_t>(out, text.size());
    out += text;
  }

  // The payload is what follows the value type.
  GgufBuilder& raw(std::string_view key, uint32_t type, std::string_view payload) {
    put_string(metadata_, key);
    put(metadata_, type);
    metadata_ += payload;
    ++metadata_count_;
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return scalar(key, kU32, value); }
  GgufBuilder& f32(std::string_view key, float value) { return scalar(key, kF32, value); }
  GgufBuilder& string(std::string_view key, std::string_view value) {
    std::string payload;
    put_string(payload, value);
    return raw(key, kString, payload);
  }
  template <typename T>
  GgufBuilder& array(std::string_view key, uint32_t type, const std::vector<T>& values) {
    std::string payload;
    put(payload, type);
    put<uint64_t>(payload, values.size());
    for (T value : values) put(payload, value);
    return raw(key, kArray, payload);
  }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    std::string payload;
    put(payload, kString);
    put<uint64_t>(payload, values.size());
    for (const std::string& value : values) put_string(payload, value);
    return raw(key, kArray, payload);
  }
  // `dimensions` in the file's order (innermost first); lies where the one before ended.
  GgufBuilder& tensor(std::string_view name, const std::vector<uint64_t>& dimensions, uint32_t type,
                      std::string_view data) {
    tensor_at(name, dimensions, type, data_.size());
    data_ += data;
    data_.append((32 - data_.size() % 32) % 32, '\0');
    return *this;
  }
  GgufBuilder& tensor_at(std::string_view name, const std::vector<uint64_t>& dimensions, uint32_t type,
                         uint64_t offset) {
    put_string(tensors_, name);
    put<uint32_t>(tensors_, static_cast<uint32_t>(dimensions.size()));
    for (uint64_t dimension : dimensions) put(tensors_, dimension);
    put(tensors_, type);
    put(tensors_, offset);
    ++tensor_count_;
    return *this;
  }

  std::string build(uint32_t version = 3) const {
    std::string out = "GGUF";
    put(out, version);
    put(out, tensor_count_);
    put(out, metadata_count_);
    out += metadata_ + tensors_;
    if (tensor_count_ > 0) out.append((32 - out.size() % 32) % 32, '\0');
    return out + data_;
  }

 private:
  template <typename T>
  GgufBuilder& scalar(std::string_view key, uint32_t type, T value) {
    std::string payload;
    put(payload, value);
    return raw(key, type, payload);
  }
  std::string metadata_;
  std::string tensors_;
  std::string data_;
  uint64_t metadata_count_ = 0;
  uint64_t tensor_count_ = 0;
};

}  // namespace tessera::checkpoint
