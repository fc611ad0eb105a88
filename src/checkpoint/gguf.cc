#include "checkpoint/gguf.h"

#include <cstdio>

namespace tessera::checkpoint {

std::optional<SplitName> parse_split_name(std::string_view file_name) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (file_name.size() <= kPattern.size()) return std::nullopt;
  const std::string_view tail = file_name.substr(file_name.size() - kPattern.size());
  SplitName split;
  split.prefix = std::string(file_name.substr(0, file_name.size() - kPattern.size()));
  for (size_t i = 0; i < kPattern.size(); ++i) {
    if (kPattern[i] != '0') {
      if (tail[i] != kPattern[i]) return std::nullopt;
      continue;
    }
    if (tail[i] < '0' || tail[i] > '9') return std::nullopt;
    uint64_t& number = i < 6 ? split.part : split.parts;
    number = number * 10 + static_cast<uint64_t>(tail[i] - '0');
  }
  if (split.part == 0 || split.part > split.parts) return std::nullopt;
  return split;
}

namespace {

std::string split_file_name(const std::string& prefix, uint64_t part, uint64_t parts) {
  char suffix[64];
  std::snprintf(suffix, sizeof suffix, "-%05u-of-%05u.gguf", static_cast<unsigned>(part),
                static_cast<unsigned>(parts));
  return prefix + suffix;
}

std::optional<uint64_t> unsigned_of(const Metadata& metadata, std::string_view key) {
  auto it = metadata.find(key);
  if (it == metadata.end()) return std::nullopt;
  if (const auto* value = std::get_if<uint64_t>(&it->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&it->second); value != nullptr && *value >= 0)
    return static_cast<uint64_t>(*value);
  return std::nullopt;
}

}  // namespace

// part counts from 1; parts is 1 for a file that is no part of a set.
Status GgufFile::add_part(const std::filesystem::path& path, uint64_t part, uint64_t parts) {
  TESSERA_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
  TESSERA_ASSIGN_OR_RETURN(GgufContents contents, parse_gguf(file->bytes()));
  const uint64_t count = unsigned_of(contents.metadata, "split.count").value_or(1);
  if (parts == 1 && count > 1)
    return corrupt("the file is one of " + std::to_string(count) +
                   " parts, but its name does not end in -00001-of-0000N.gguf");
  if (parts > 1) {
    const uint64_t number = unsigned_of(contents.metadata, "split.no").value_or(0);
    if (count != parts || number != part - 1)
      return corrupt("the file says it is part " + std::to_string(number + 1) + " of " +
                     std::to_string(count) + ", its name says " + std::to_string(part) + " of " +
                     std::to_string(parts));
  }
  for (TensorInfo& tensor : contents.tensors) {
    tensor.file = file;
    tensors_.push_back(std::move(tensor));
  }
  if (part == 1) metadata_ = std::move(contents.metadata);
  file_bytes_ += file->bytes().size();
  return {};
}

Result<std::shared_ptr<const GgufFile>> GgufFile::open(const std::filesystem::path& path) {
  std::shared_ptr<GgufFile> gguf(new GgufFile());
  const auto split = parse_split_name(path.filename().string());
  const uint64_t parts = split ? split->parts : 1;
  gguf->path_ = path;
  for (uint64_t part = 1; part <= parts; ++part) {
    std::filesystem::path file = path;
    if (split) file = path.parent_path() / split_file_name(split->prefix, part, parts);
    if (part == 1) gguf->path_ = file;
    Status status = gguf->add_part(file, part, parts);
    if (!status.ok()) return status.code() == Code::kNotFound ? status : status.with_context(file.string());
  }
  const auto expected = gguf->get_u64("split.tensors.count");
  if (parts > 1 && expected && *expected != gguf->tensors_.size())
    return corrupt(gguf->path_.string() + ": the parts hold " + std::to_string(gguf->tensors_.size()) +
                   " tensors, not " + std::to_string(*expected));
  Status distinct = check_distinct(gguf->tensors_);
  if (!distinct.ok()) return distinct.with_context(gguf->path_.string());
  for (const TensorInfo& tensor : gguf->tensors_) gguf->by_name_.emplace(tensor.name, &tensor);
  return std::shared_ptr<const GgufFile>(std::move(gguf));
}

const TensorInfo* GgufFile::find(std::string_view name) const {
  auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

template <typename T>
std::optional<T> GgufFile::get(std::string_view key) const {
  auto it = metadata_.find(key);
  if (it == metadata_.end()) return std::nullopt;
  if (const auto* value = std::get_if<T>(&it->second)) return *value;
  return std::nullopt;
}

std::optional<std::string> GgufFile::get_string(std::string_view key) const {
  return get<std::string>(key);
}
std::optional<uint64_t> GgufFile::get_u64(std::string_view key) const {
  return unsigned_of(metadata_, key);
}
std::optional<int64_t> GgufFile::get_i64(std::string_view key) const {
  if (auto value = get<int64_t>(key)) return value;
  auto value = get<uint64_t>(key);
  if (!value || *value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(*value);
}
std::optional<double> GgufFile::get_f64(std::string_view key) const {
  if (auto value = get<double>(key)) return value;
  if (auto value = get<int64_t>(key)) return static_cast<double>(*value);
  if (auto value = get<uint64_t>(key)) return static_cast<double>(*value);
  return std::nullopt;
}
std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  return get<bool>(key);
}
std::optional<std::vector<std::string>> GgufFile::get_string_array(std::string_view key) const {
  return get<std::vector<std::string>>(key);
}
std::optional<std::vector<int64_t>> GgufFile::get_i64_array(std::string_view key) const {
  return get<std::vector<int64_t>>(key);
}
std::optional<std::vector<double>> GgufFile::get_f64_array(std::string_view key) const {
  return get<std::vector<double>>(key);
}
std::optional<std::vector<bool>> GgufFile::get_bool_array(std::string_view key) const {
  return get<std::vector<bool>>(key);
}

}  // namespace tessera::checkpoint
