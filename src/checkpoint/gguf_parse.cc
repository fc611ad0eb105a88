#include <algorithm>
#include <cmath>
#include <limits>

#include "base/bytes.h"
#include "checkpoint/gguf.h"

namespace tessera::checkpoint {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxDimensions = 4;
// The fewest bytes that an entry of each table takes: bounds the counts by the file's size.
constexpr uint64_t kMinMetadataBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

struct ElementType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;  // nothing: known by name, not computed with
};
constexpr ElementType kElementTypes[] = {
    {0, "F32", DType::kF32},      {1, "F16", DType::kF16},       {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},    {6, "Q5_0", DType::kQ5_0},     {7, "Q5_1", DType::kQ5_1},
    {8, "Q8_0", DType::kQ8_0},    {9, "Q8_1", std::nullopt},     {10, "Q2_K", std::nullopt},
    {11, "Q3_K", std::nullopt},   {12, "Q4_K", DType::kQ4_K},    {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},   {15, "Q8_K", std::nullopt},    {16, "IQ2_XXS", std::nullopt},
    {17, "IQ2_XS", std::nullopt}, {18, "IQ3_XXS", std::nullopt}, {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", std::nullopt}, {21, "IQ3_S", std::nullopt},   {22, "IQ2_S", std::nullopt},
    {23, "IQ4_XS", std::nullopt}, {24, "I8", DType::kI8},        {25, "I16", DType::kI16},
    {26, "I32", DType::kI32},     {27, "I64", DType::kI64},      {28, "F64", DType::kF64},
    {29, "IQ1_M", std::nullopt},  {30, "BF16", DType::kBF16},    {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},  {39, "MXFP4", std::nullopt},   {40, "NVFP4", std::nullopt},
};

Result<DType> element_type(uint32_t id, const std::string& tensor) {
  for (const ElementType& type : kElementTypes) {
    if (type.id != id) continue;
    if (type.dtype) return *type.dtype;
    return unsupported("tensor " + tensor + " has type " + std::string(type.name) +
                       ", which Tessera does not compute with");
  }
  return unsupported("tensor " + tensor + " has the unknown GGUF type " + std::to_string(id));
}

Result<std::string_view> read_string(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(uint64_t length, reader.read<uint64_t>());
  return reader.take_string(length);
}

// One scalar, widened to T.
template <typename Stored, typename T>
Result<T> read_as(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(Stored value, reader.read<Stored>());
  return static_cast<T>(value);
}

Result<bool> read_bool(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(uint8_t value, reader.read<uint8_t>());
  if (value > 1) return corrupt("a bool is " + std::to_string(value) + ", not 0 or 1");
  return value == 1;
}

Result<int64_t> read_u64_as_i64(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(uint64_t value, reader.read<uint64_t>());
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return unsupported("an array value is above 2^63-1");
  return static_cast<int64_t>(value);
}

Result<std::string> read_owned_string(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(std::string_view value, read_string(reader));
  return std::string(value);
}

template <typename T>
Result<MetadataValue> read_elements(ByteReader& reader, uint64_t count, uint64_t min_bytes,
                                    Result<T> (*read)(ByteReader&)) {
  if (count > reader.remaining() / min_bytes)
    return corrupt("an array of " + std::to_string(count) + " values in " +
                   std::to_string(reader.remaining()) + " bytes");
  std::vector<T> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    TESSERA_ASSIGN_OR_RETURN(T value, read(reader));
    values.push_back(std::move(value));
  }
  return MetadataValue(std::move(values));
}

Result<MetadataValue> read_array(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(uint32_t type, reader.read<uint32_t>());
  TESSERA_ASSIGN_OR_RETURN(uint64_t count, reader.read<uint64_t>());
  switch (type) {
    case kUint8:
      return read_elements<int64_t>(reader, count, 1, read_as<uint8_t, int64_t>);
    case kInt8:
      return read_elements<int64_t>(reader, count, 1, read_as<int8_t, int64_t>);
    case kUint16:
      return read_elements<int64_t>(reader, count, 2, read_as<uint16_t, int64_t>);
    case kInt16:
      return read_elements<int64_t>(reader, count, 2, read_as<int16_t, int64_t>);
    case kUint32:
      return read_elements<int64_t>(reader, count, 4, read_as<uint32_t, int64_t>);
    case kInt32:
      return read_elements<int64_t>(reader, count, 4, read_as<int32_t, int64_t>);
    case kUint64:
      return read_elements<int64_t>(reader, count, 8, read_u64_as_i64);
    case kInt64:
      return read_elements<int64_t>(reader, count, 8, read_as<int64_t, int64_t>);
    case kFloat32:
      return read_elements<double>(reader, count, 4, read_as<float, double>);
    case kFloat64:
      return read_elements<double>(reader, count, 8, read_as<double, double>);
    case kBool:
      return read_elements<bool>(reader, count, 1, read_bool);
    case kString:
      return read_elements<std::string>(reader, count, 8, read_owned_string);
    case kArray:
      return unsupported("an array of arrays");
    default:
      return corrupt("array of the unknown value type " + std::to_string(type));
  }
}

template <typename T>
Result<MetadataValue> wrap(Result<T> value) {
  if (!value.ok()) return value.status();
  return MetadataValue(std::move(value).value());
}

Result<MetadataValue> read_value(ByteReader& reader) {
  TESSERA_ASSIGN_OR_RETURN(uint32_t type, reader.read<uint32_t>());
  switch (type) {
    case kUint8:
      return wrap(read_as<uint8_t, uint64_t>(reader));
    case kInt8:
      return wrap(read_as<int8_t, int64_t>(reader));
    case kUint16:
      return wrap(read_as<uint16_t, uint64_t>(reader));
    case kInt16:
      return wrap(read_as<int16_t, int64_t>(reader));
    case kUint32:
      return wrap(read_as<uint32_t, uint64_t>(reader));
    case kInt32:
      return wrap(read_as<int32_t, int64_t>(reader));
    case kUint64:
      return wrap(read_as<uint64_t, uint64_t>(reader));
    case kInt64:
      return wrap(read_as<int64_t, int64_t>(reader));
    case kFloat32:
      return wrap(read_as<float, double>(reader));
    case kFloat64:
      return wrap(read_as<double, double>(reader));
    case kBool:
      return wrap(read_bool(reader));
    case kString:
      return wrap(read_owned_string(reader));
    case kArray:
      return read_array(reader);
    default:
      return corrupt("unknown value type " + std::to_string(type));
  }
}

Status read_metadata(ByteReader& reader, uint64_t count, Metadata& metadata) {
  if (count > reader.remaining() / kMinMetadataBytes)
    return corrupt("the header claims " + std::to_string(count) + " metadata entries in " +
                   std::to_string(reader.remaining()) + " bytes");
  for (uint64_t i = 0; i < count; ++i) {
    TESSERA_ASSIGN_OR_RETURN(std::string_view key, read_string(reader));
    if (key.empty() || key.size() > kMaxKeyBytes)
      return corrupt("a metadata key of " + std::to_string(key.size()) + " bytes");
    auto value = read_value(reader);
    if (!value.ok()) return value.status().with_context("metadata " + std::string(key));
    if (!metadata.emplace(std::string(key), std::move(*value)).second)
      return corrupt("metadata " + std::string(key) + " appears twice");
  }
  return {};
}

// The offset stays relative to the data section here.
Result<TensorInfo> read_tensor_info(ByteReader& reader) {
  TensorInfo info;
  TESSERA_ASSIGN_OR_RETURN(std::string_view name, read_string(reader));
  if (name.empty() || name.size() > kMaxKeyBytes)
    return corrupt("a tensor name of " + std::to_string(name.size()) + " bytes");
  info.name = std::string(name);
  TESSERA_ASSIGN_OR_RETURN(uint32_t dimensions, reader.read<uint32_t>());
  if (dimensions > kMaxDimensions)
    return corrupt("tensor " + info.name + " has " + std::to_string(dimensions) + " dimensions");
  for (uint32_t i = 0; i < dimensions; ++i) {
    TESSERA_ASSIGN_OR_RETURN(uint64_t dimension, reader.read<uint64_t>());
    info.shape.push_back(dimension);
  }
  std::reverse(info.shape.begin(), info.shape.end());
  TESSERA_ASSIGN_OR_RETURN(uint32_t type, reader.read<uint32_t>());
  TESSERA_ASSIGN_OR_RETURN(info.dtype, element_type(type, info.name));
  TESSERA_ASSIGN_OR_RETURN(info.offset, reader.read<uint64_t>());
  auto bytes = tensor_bytes(info.dtype, info.shape);
  if (!bytes.ok()) return bytes.status().with_context("tensor " + info.name);
  info.bytes = *bytes;
  return info;
}

Result<uint64_t> alignment_of(const Metadata& metadata) {
  auto it = metadata.find("general.alignment");
  if (it == metadata.end()) return kDefaultAlignment;
  const auto* value = std::get_if<uint64_t>(&it->second);
  if (value == nullptr || *value == 0 || (*value & (*value - 1)) != 0 || *value > (uint64_t{1} << 30))
    return corrupt("general.alignment is not a power of two");
  return *value;
}

Status place_tensors(std::vector<TensorInfo>& tensors, uint64_t header_bytes, uint64_t file_bytes,
                     uint64_t alignment) {
  const uint64_t data_start = (header_bytes + alignment - 1) / alignment * alignment;
  if (tensors.empty()) return {};
  if (data_start > file_bytes) return corrupt("the file ends before its tensor data (truncated?)");
  const uint64_t data_bytes = file_bytes - data_start;
  for (TensorInfo& tensor : tensors) {
    if (tensor.offset % alignment != 0)
      return corrupt("tensor " + tensor.name + " lies at offset " + std::to_string(tensor.offset) +
                     ", no multiple of the alignment " + std::to_string(alignment));
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset)
      return corrupt("tensor " + tensor.name + " ends outside the file (truncated?)");
    tensor.offset += data_start;
  }
  return check_distinct(tensors);
}

}  // namespace

Result<GgufContents> parse_gguf(std::span<const uint8_t> file) {
  ByteReader reader(file);
  TESSERA_ASSIGN_OR_RETURN(uint32_t magic, reader.read<uint32_t>());
  if (magic != kMagic) return corrupt("not a GGUF file: it does not begin with \"GGUF\"");
  TESSERA_ASSIGN_OR_RETURN(uint32_t version, reader.read<uint32_t>());
  if ((version & 0xffffu) == 0) return unsupported("a big-endian GGUF file; convert it to little endian");
  if (version == 1) return unsupported("GGUF version 1; convert the file to version 3");
  if (version != 2 && version != 3) return unsupported("GGUF version " + std::to_string(version));
  TESSERA_ASSIGN_OR_RETURN(uint64_t tensor_count, reader.read<uint64_t>());
  TESSERA_ASSIGN_OR_RETURN(uint64_t metadata_count, reader.read<uint64_t>());
  GgufContents contents;
  TESSERA_RETURN_IF_ERROR(read_metadata(reader, metadata_count, contents.metadata));
  TESSERA_ASSIGN_OR_RETURN(uint64_t alignment, alignment_of(contents.metadata));
  if (tensor_count > reader.remaining() / kMinTensorBytes)
    return corrupt("the header claims " + std::to_string(tensor_count) + " tensors in " +
                   std::to_string(reader.remaining()) + " bytes");
  contents.tensors.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) {
    TESSERA_ASSIGN_OR_RETURN(TensorInfo info, read_tensor_info(reader));
    contents.tensors.push_back(std::move(info));
  }
  TESSERA_RETURN_IF_ERROR(place_tensors(contents.tensors, reader.offset(), file.size(), alignment));
  return contents;
}

}  // namespace tessera::checkpoint
