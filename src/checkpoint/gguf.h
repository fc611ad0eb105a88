// GGUF model files: metadata and tensor table, read as hostile input.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "checkpoint/tensor_info.h"

namespace tessera::checkpoint {

// All integer widths become int64_t (signed) or uint64_t (unsigned), both floats double. Arrays of integers
// become int64_t whatever their width; one with a value above 2^63-1 and arrays of arrays are refused.
using MetadataValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>,
                                   std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;
using Metadata = std::map<std::string, MetadataValue, std::less<>>;

struct GgufContents {
  Metadata metadata;
  std::vector<TensorInfo> tensors;  // `file` null; offsets from the start of the file
};

// Reads the header of one file's bytes. Versions 2 and 3, little endian. Uses memory in proportion to the
// bytes given. A tensor of a type that Tessera cannot compute with is `unsupported`, naming tensor and type.
Result<GgufContents> parse_gguf(std::span<const uint8_t> file);

// One GGUF model: a file, or all files of a split set (NAME-00001-of-0000N.gguf), of which any one may be
// named. Immutable, thread-safe.
class GgufFile final {
 public:
  static Result<std::shared_ptr<const GgufFile>> open(const std::filesystem::path& path);

  // The typed getters answer nothing when the key is absent or holds another type. Numbers convert where no
  // value changes: get_u64 takes a signed integer >= 0, get_f64 any number.
  std::optional<std::string> get_string(std::string_view key) const;
  std::optional<uint64_t> get_u64(std::string_view key) const;
  std::optional<int64_t> get_i64(std::string_view key) const;
  std::optional<double> get_f64(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::vector<std::string>> get_string_array(std::string_view key) const;
  std::optional<std::vector<int64_t>> get_i64_array(std::string_view key) const;
  std::optional<std::vector<double>> get_f64_array(std::string_view key) const;
  std::optional<std::vector<bool>> get_bool_array(std::string_view key) const;

  // Of the first file of a split set.
  const Metadata& metadata() const { return metadata_; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;
  const std::filesystem::path& path() const { return path_; }
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  GgufFile() = default;
  Status add_part(const std::filesystem::path& path, uint64_t part, uint64_t parts);
  template <typename T>
  std::optional<T> get(std::string_view key) const;

  std::filesystem::path path_;
  Metadata metadata_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string_view, const TensorInfo*> by_name_;
  uint64_t file_bytes_ = 0;
};

// What NAME-00002-of-00003.gguf says: {"NAME", 2, 3}; nothing for any other name.
struct SplitName {
  std::string prefix;
  uint64_t part = 0;
  uint64_t parts = 0;
};
std::optional<SplitName> parse_split_name(std::string_view file_name);

}  // namespace tessera::checkpoint
