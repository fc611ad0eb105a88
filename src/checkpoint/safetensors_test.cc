#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "base/sha256.h"

namespace tessera::checkpoint {
namespace {

std::string file_of(std::string_view header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}

Result<std::vector<TensorInfo>> parse(const std::string& bytes, SafetensorsMetadata* metadata = nullptr) {
  return parse_safetensors(as_bytes(bytes), metadata);
}

constexpr std::string_view kTwo =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
    R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"I8","shape":[0],"data_offsets":[16,16]}}  )";

TEST(Safetensors, ReadsTensorsAndMetadata) {
  SafetensorsMetadata metadata;
  auto tensors = parse(file_of(kTwo, 16), &metadata);
  ASSERT_TRUE(tensors.ok()) << tensors.status().to_string();
  ASSERT_EQ(tensors->size(), 3u);
  const TensorInfo& b = (*tensors)[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_EQ(b.shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(b.offset, 8 + kTwo.size() + 4);
  EXPECT_EQ(b.bytes, 12u);
  EXPECT_EQ(metadata["format"], "pt");
}

TEST(Safetensors, RefusesEveryTruncationAndAnyExtraByte) {
  const std::string whole = file_of(kTwo, 16);
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_FALSE(parse(whole.substr(0, length)).ok()) << length;
  EXPECT_FALSE(parse(whole + "x").ok());
}

TEST(Safetensors, SurvivesMutations) {
  const std::string whole = file_of(kTwo, 16);
  std::mt19937 random(3);
  for (size_t position = 0; position < whole.size() - 16; ++position) {
    for (int variant = 0; variant < 16; ++variant) {
      std::string mutated = whole;
      mutated[position] = static_cast<char>(random());
      auto tensors = parse(mutated);
      if (!tensors.ok()) continue;
      for (const TensorInfo& tensor : *tensors) ASSERT_LE(tensor.offset + tensor.bytes, mutated.size());
    }
  }
}

TEST(Safetensors, NamesWhatItRefuses) {
  struct Case {
    std::string header;
    Code code;
    std::string says;
  };
  const std::string deep = "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
  const Case cases[] = {
      {"", Code::kCorrupt, "not a JSON object"},
      {"[]", Code::kCorrupt, "not a JSON object"},
      {"{\"a\":", Code::kCorrupt, "header"},
      {deep, Code::kCorrupt, "nested deeper"},
      {R"({"a":1})", Code::kCorrupt, "tensor a"},
      {R"({"a":{"dtype":"F32","shape":[4]}})", Code::kCorrupt, "data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"more":1}})", Code::kCorrupt, "nothing else"},
      {R"({"a":{"dtype":"U32","shape":[4],"data_offsets":[0,16]}})", Code::kUnsupported, "a has type U32"},
      {R"({"a":{"dtype":"Q8_0","shape":[4],"data_offsets":[0,16]}})", Code::kUnsupported, "a has type Q8_0"},
      {R"({"a":{"dtype":7,"shape":[4],"data_offsets":[0,16]}})", Code::kCorrupt, "not a string"},
      {R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})", Code::kCorrupt, "whole number"},
      {R"({"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}})", Code::kCorrupt, "whole number"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]}})", Code::kCorrupt,
       "at most 8"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", Code::kCorrupt, "outside the file"},
      {R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,18446744073709551615]}})", Code::kCorrupt,
       "outside the file"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})", Code::kCorrupt, "needs 12 bytes"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}})", Code::kCorrupt,
       "overflows"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16]}})", Code::kCorrupt,
       "overflows"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
       Code::kCorrupt, "appears twice"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}})",
       Code::kCorrupt, "overlap"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", Code::kCorrupt, "belong to no tensor"},
      {R"({"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", Code::kCorrupt,
       "__metadata__"},
      {R"({"__metadata__":[],"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", Code::kCorrupt,
       "__metadata__"},
  };
  for (const Case& c : cases) {
    auto result = parse(file_of(c.header, 16));
    ASSERT_FALSE(result.ok()) << c.header.substr(0, 200);
    EXPECT_EQ(result.status().code(), c.code) << result.status().to_string();
    EXPECT_NE(result.status().message().find(c.says), std::string::npos)
        << result.status().message() << " should say: " << c.says;
  }
  std::string long_header = file_of("{}", 0);
  long_header[7] = '\x7f';
  EXPECT_NE(parse(long_header).status().message().find("not a safetensors file"), std::string::npos);
}

}  // namespace
}  // namespace tessera::checkpoint
