#include "checkpoint/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/json.h"

namespace tessera::checkpoint {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxDimensions = 8;
constexpr int kMaxDepth = 8;

std::optional<DType> dtype_of(std::string_view name) {
  constexpr DType kTypes[] = {DType::kF32, DType::kF16,  DType::kBF16,   DType::kI8,
                              DType::kU8,  DType::kI16,  DType::kI32,    DType::kI64,
                              DType::kF64, DType::kBool, DType::kF8E4M3, DType::kF8E5M2};
  for (DType type : kTypes) {
    if (dtype_info(type).name == name) return type;
  }
  return std::nullopt;
}

// JSON parsers keep one of two equal keys silently, and not all the same one: refuse. The first parse bounds
// the depth, which a parse with a callback does not.
Result<Json> parse_header(std::string_view text) {
  auto header = parse_json(text, {.max_depth = kMaxDepth});
  if (!header.ok()) return corrupt("header: " + header.status().message());
  std::vector<std::set<std::string>> keys;
  std::string twice;
  auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      twice = value.get<std::string>();
    return true;
  };
  try {
    *header = Json::parse(text, watch);
  } catch (const std::exception& error) {
    return corrupt(std::string("header: ") + error.what());
  }
  if (!twice.empty()) return corrupt("\"" + twice + "\" appears twice in the header");
  return header;
}

Result<TensorInfo> read_entry(const std::string& name, const Json& entry, uint64_t data_start,
                              uint64_t data_bytes) {
  const std::string where = "tensor " + name;
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets"))
    return corrupt(where + ": its entry must hold dtype, shape and data_offsets and nothing else");
  const Json& dtype = entry["dtype"];
  const Json& shape = entry["shape"];
  const Json& offsets = entry["data_offsets"];
  if (!dtype.is_string()) return corrupt(where + ": dtype is not a string");
  TensorInfo info;
  info.name = name;
  const auto type = dtype_of(dtype.get_ref<const std::string&>());
  if (!type) {
    return unsupported(where + " has type " + dtype.get<std::string>().substr(0, 32) +
                       ", which Tessera does not read");
  }
  info.dtype = *type;
  if (!shape.is_array() || shape.size() > kMaxDimensions)
    return corrupt(where + ": shape is not a list of at most " + std::to_string(kMaxDimensions) + " numbers");
  for (const Json& dimension : shape) {
    if (!dimension.is_number_unsigned()) return corrupt(where + ": a dimension is not a whole number");
    info.shape.push_back(dimension.get<uint64_t>());
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    return corrupt(where + ": data_offsets is not a pair of whole numbers");
  const auto begin = offsets[0].get<uint64_t>();
  const auto end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_bytes) return corrupt(where + " ends outside the file (truncated?)");
  auto bytes = tensor_bytes(info.dtype, info.shape);
  if (!bytes.ok()) return bytes.status().with_context(where);
  if (*bytes != end - begin)
    return corrupt(where + " needs " + std::to_string(*bytes) + " bytes, data_offsets give " +
                   std::to_string(end - begin));
  info.offset = data_start + begin;
  info.bytes = *bytes;
  return info;
}

Status check_covers(const std::vector<TensorInfo>& tensors, uint64_t data_start, uint64_t data_bytes) {
  std::vector<std::pair<uint64_t, uint64_t>> spans;
  spans.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) spans.emplace_back(tensor.offset, tensor.bytes);
  std::sort(spans.begin(), spans.end());
  uint64_t position = data_start;
  for (const auto& [offset, bytes] : spans) {
    if (offset != position)
      return corrupt("the data section has a hole or an overlap at offset " + std::to_string(offset));
    position += bytes;
  }
  if (position != data_start + data_bytes)
    return corrupt("the file has " + std::to_string(data_start + data_bytes - position) +
                   " bytes that belong to no tensor");
  return {};
}

Status read_metadata(const Json& object, SafetensorsMetadata* metadata) {
  if (!object.is_object()) return corrupt("__metadata__ is not an object");
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) return corrupt("__metadata__ holds something that is not a string");
    if (metadata != nullptr) (*metadata)[key] = value.get<std::string>();
  }
  return {};
}

}  // namespace

Result<std::vector<TensorInfo>> parse_safetensors(std::span<const uint8_t> file,
                                                  SafetensorsMetadata* metadata) {
  ByteReader reader(file);
  TESSERA_ASSIGN_OR_RETURN(uint64_t header_bytes, reader.read<uint64_t>());
  if (header_bytes > kMaxHeaderBytes)
    return corrupt("not a safetensors file: a header of " + std::to_string(header_bytes) + " bytes");
  TESSERA_ASSIGN_OR_RETURN(std::string_view text, reader.take_string(header_bytes));
  if (text.empty() || text.front() != '{')
    return corrupt("not a safetensors file: the header is not a JSON object");
  TESSERA_ASSIGN_OR_RETURN(const Json header, parse_header(text));
  const uint64_t data_start = reader.offset();
  const uint64_t data_bytes = reader.remaining();
  std::vector<TensorInfo> tensors;
  tensors.reserve(header.size());
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      TESSERA_RETURN_IF_ERROR(read_metadata(entry, metadata));
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(TensorInfo info, read_entry(name, entry, data_start, data_bytes));
    tensors.push_back(std::move(info));
  }
  TESSERA_RETURN_IF_ERROR(check_covers(tensors, data_start, data_bytes));
  return tensors;
}

Result<std::vector<TensorInfo>> read_safetensors(const std::filesystem::path& path,
                                                 SafetensorsMetadata* metadata) {
  TESSERA_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
  auto tensors = parse_safetensors(file->bytes(), metadata);
  if (!tensors.ok()) return tensors.status().with_context(path.string());
  for (TensorInfo& tensor : *tensors) tensor.file = file;
  return tensors;
}

}  // namespace tessera::checkpoint
