#include "checkpoint/gguf.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "base/sha256.h"
#include "checkpoint/gguf_builder.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

GgufBuilder small_file() {
  GgufBuilder builder;
  builder.string("general.architecture", "llama")
      .u32("llama.block_count", 2)
      .f32("llama.eps", 0.5f)
      .raw("flag", GgufBuilder::kBool, std::string(1, '\1'))
      .strings("tokens", {"a", "", "ccc"})
      .array<int32_t>("kinds", 5, {1, -2, 3})
      .array<float>("scores", 6, {0.25f, -1.0f});
  builder.tensor("a", {4, 2}, 0, std::string(32, 'x'));
  builder.tensor("b", {32, 3}, 8, std::string(3 * 34, 'y'));  // Q8_0
  return builder;
}

Result<GgufContents> parse(const std::string& bytes) {
  return parse_gguf(as_bytes(bytes));
}

class GgufFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("gguf_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path write(const std::string& name, const std::string& bytes) {
    EXPECT_TRUE(write_file_atomic(folder_ / name, bytes).ok());
    return folder_ / name;
  }
  fs::path folder_;
};

TEST_F(GgufFiles, ReadsMetadataAndTensors) {
  for (uint32_t version : {2u, 3u}) {
    auto file = GgufFile::open(write("m.gguf", small_file().build(version)));
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    const GgufFile& gguf = **file;
    EXPECT_EQ(gguf.get_string("general.architecture"), "llama");
    EXPECT_EQ(gguf.get_u64("llama.block_count"), 2u);
    EXPECT_EQ(gguf.get_f64("llama.block_count"), 2.0);
    EXPECT_EQ(gguf.get_f64("llama.eps"), 0.5);
    EXPECT_EQ(gguf.get_bool("flag"), true);
    EXPECT_EQ(gguf.get_string_array("tokens"), (std::vector<std::string>{"a", "", "ccc"}));
    EXPECT_EQ(gguf.get_i64_array("kinds"), (std::vector<int64_t>{1, -2, 3}));
    EXPECT_EQ(gguf.get_f64_array("scores"), (std::vector<double>{0.25, -1.0}));
    EXPECT_EQ(gguf.get_u64("llama.eps"), std::nullopt);
    EXPECT_EQ(gguf.get_string("absent"), std::nullopt);
    ASSERT_EQ(gguf.tensors().size(), 2u);
    EXPECT_EQ(gguf.tensors()[0].shape, (std::vector<uint64_t>{2, 4}));  // reversed: row-major
    const TensorInfo* b = gguf.find("b");
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->dtype, DType::kQ8_0);
    EXPECT_EQ(std::string(b->data().begin(), b->data().end()), std::string(3 * 34, 'y'));
    EXPECT_EQ(gguf.find("c"), nullptr);
  }
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string whole = small_file().build();
  ASSERT_TRUE(parse(whole).ok());
  const size_t end_of_data = whole.size() - (32 - 3 * 34 % 32);  // the rest pads the last tensor
  ASSERT_TRUE(parse(whole.substr(0, end_of_data)).ok());
  for (size_t length = 0; length < end_of_data; ++length)
    EXPECT_FALSE(parse(whole.substr(0, length)).ok()) << length;
}

TEST(Gguf, RefusesAnEmptyTensorBehindTheEnd) {
  const std::string whole = GgufBuilder().tensor("t", {0}, 0, "").build();
  ASSERT_TRUE(parse(whole).ok());
  EXPECT_FALSE(parse(whole.substr(0, whole.size() - 1)).ok());
}

TEST(Gguf, SurvivesMutations) {
  const std::string whole = small_file().build();
  std::mt19937 random(7);
  for (size_t position = 0; position < whole.size(); ++position) {
    for (int variant = 0; variant < 8; ++variant) {
      std::string mutated = whole;
      mutated[position] = static_cast<char>(variant == 0 ? 0xff : variant == 1 ? 0 : random());
      if (variant > 4) mutated[random() % mutated.size()] = static_cast<char>(random());
      auto contents = parse(mutated);
      if (!contents.ok()) continue;
      for (const TensorInfo& tensor : contents->tensors)
        ASSERT_LE(tensor.offset + tensor.bytes, mutated.size()) << position;
    }
  }
}

TEST(Gguf, NamesWhatItRefuses) {
  struct Case {
    std::string bytes;
    Code code;
    std::string says;
  };
  std::string big_endian = small_file().build();
  std::swap(big_endian[4], big_endian[7]);
  std::string many = small_file().build();
  many[8 + 7] = '\x7f';  // tensor count
  std::string huge_array;
  GgufBuilder::put<uint32_t>(huge_array, GgufBuilder::kString);
  GgufBuilder::put<uint64_t>(huge_array, uint64_t{1} << 60);
  std::string nested;
  GgufBuilder::put<uint32_t>(nested, GgufBuilder::kArray);
  GgufBuilder::put<uint64_t>(nested, 1);
  const std::string data(64, 'z');
  const std::vector<Case> cases = {
      {"", Code::kCorrupt, "truncated"},
      {"PK\3\4 a zip", Code::kCorrupt, "not a GGUF file"},
      {big_endian, Code::kUnsupported, "big-endian"},
      {small_file().build(1), Code::kUnsupported, "version 1"},
      {small_file().build(4), Code::kUnsupported, "version 4"},
      {many, Code::kCorrupt, "tensors in"},
      {GgufBuilder().raw("k", GgufBuilder::kArray, huge_array).build(), Code::kCorrupt, "metadata k"},
      {GgufBuilder().raw("k", GgufBuilder::kArray, nested).build(), Code::kUnsupported, "array of arrays"},
      {GgufBuilder().raw("k", GgufBuilder::kBool, "\7").build(), Code::kCorrupt, "not 0 or 1"},
      {GgufBuilder().raw("k", 99, "").build(), Code::kCorrupt, "unknown value type 99"},
      {GgufBuilder().u32("k", 1).u32("k", 2).build(), Code::kCorrupt, "k appears twice"},
      {GgufBuilder().u32("general.alignment", 24).build(), Code::kCorrupt, "power of two"},
      {GgufBuilder().u32("general.alignment", 0).build(), Code::kCorrupt, "power of two"},
      {GgufBuilder().tensor("t", {256}, 10, data).build(), Code::kUnsupported, "t has type Q2_K"},
      {GgufBuilder().tensor("t", {4}, 77, data).build(), Code::kUnsupported, "unknown GGUF type 77"},
      {GgufBuilder().tensor("t", {16}, 0, data).tensor("t", {16}, 0, data).build(), Code::kCorrupt,
       "t appears twice"},
      {GgufBuilder().tensor("t", {16}, 0, data).tensor_at("u", {8}, 0, 32).build(), Code::kCorrupt,
       "overlap"},
      {GgufBuilder().tensor("t", {16}, 0, data).tensor_at("u", {1}, 0, 4).build(), Code::kCorrupt,
       "alignment"},
      {GgufBuilder().tensor_at("t", {16}, 0, ~uint64_t{31}).build(), Code::kCorrupt, "outside the file"},
      {GgufBuilder().tensor_at("t", {1ull << 32, 1ull << 32}, 0, 0).build(), Code::kCorrupt, "overflows"},
      {GgufBuilder().tensor_at("t", {1ull << 62}, 0, 0).build(), Code::kCorrupt, "overflows"},
      {GgufBuilder().tensor_at("t", {16, 2}, 8, 0).build(), Code::kCorrupt, "whole number of Q8_0 blocks"},
      {GgufBuilder().tensor_at("t", {1, 1, 1, 1, 1}, 0, 0).build(), Code::kCorrupt, "5 dimensions"},
      {GgufBuilder().tensor_at("", {1}, 0, 0).build(), Code::kCorrupt, "tensor name of 0 bytes"},
  };
  for (const Case& c : cases) {
    auto result = parse(c.bytes);
    ASSERT_FALSE(result.ok()) << c.says;
    EXPECT_EQ(result.status().code(), c.code) << result.status().to_string();
    EXPECT_NE(result.status().message().find(c.says), std::string::npos)
        << result.status().message() << " should say: " << c.says;
  }
}

std::string part(uint16_t number, uint16_t count, int32_t tensors, const std::string& name) {
  GgufBuilder builder;
  std::string raw;
  GgufBuilder::put(raw, number);
  builder.raw("split.no", 2, raw);
  raw.clear();
  GgufBuilder::put(raw, count);
  builder.raw("split.count", 2, raw);
  raw.clear();
  GgufBuilder::put(raw, tensors);
  builder.raw("split.tensors.count", 5, raw);
  builder.tensor(name, {4}, 0, std::string(16, name[0]));
  return builder.build();
}

TEST_F(GgufFiles, OpensSplitSetFromAnyPart) {
  write("m-00001-of-00002.gguf", part(0, 2, 2, "a"));
  write("m-00002-of-00002.gguf", part(1, 2, 2, "b"));
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    auto file = GgufFile::open(folder_ / name);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_EQ((*file)->find("a")->data()[0], 'a');
    EXPECT_EQ((*file)->find("b")->data()[0], 'b');
    EXPECT_EQ((*file)->path().filename(), "m-00001-of-00002.gguf");
    EXPECT_EQ((*file)->file_bytes(), part(0, 2, 2, "a").size() * 2);
  }
}

TEST_F(GgufFiles, RefusesBrokenSplitSets) {
  EXPECT_EQ(GgufFile::open(write("alone.gguf", part(0, 2, 2, "a"))).status().code(), Code::kCorrupt);
  const fs::path first = write("m-00001-of-00002.gguf", part(0, 2, 2, "a"));
  EXPECT_EQ(GgufFile::open(first).status().code(), Code::kNotFound);
  write("m-00002-of-00002.gguf", part(0, 2, 2, "b"));
  EXPECT_EQ(GgufFile::open(first).status().code(), Code::kCorrupt);  // both say they are the first
  write("m-00002-of-00002.gguf", part(1, 2, 2, "a"));
  EXPECT_NE(GgufFile::open(first).status().message().find("a appears twice"), std::string::npos);
  write("m-00001-of-00002.gguf", part(0, 2, 3, "a"));
  write("m-00002-of-00002.gguf", part(1, 2, 3, "b"));
  EXPECT_NE(GgufFile::open(first).status().message().find("2 tensors, not 3"), std::string::npos);
}

TEST(Gguf, ParsesSplitNames) {
  auto split = parse_split_name("big-model-00002-of-00010.gguf");
  ASSERT_TRUE(split);
  EXPECT_EQ(split->prefix, "big-model");
  EXPECT_EQ(split->part, 2u);
  EXPECT_EQ(split->parts, 10u);
  for (const char* name : {"m.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-0001-of-0002.gguf",
                           "-00001-of-00002.gguf", "m-0000a-of-00002.gguf"})
    EXPECT_FALSE(parse_split_name(name)) << name;
}

}  // namespace
}  // namespace tessera::checkpoint
