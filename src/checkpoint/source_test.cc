#include "checkpoint/source.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "checkpoint/manifest.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& name) {
  return fs::path(TESSERA_SOURCE_DIR) / "tests/parity/models" / name;
}

std::string safetensors_of(const std::vector<std::string>& names) {
  std::string header = "{";
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) header += ',';
    header += '"' + names[i] + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(i) + ',' +
              std::to_string(i + 1) + "]}";
  }
  header += '}';
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  return out + header + std::string(names.size(), '*');
}

class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("source_" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "model");
    folder_ /= "model";
  }
  void TearDown() override { fs::remove_all(folder_.parent_path()); }
  void write(const std::string& name, const std::string& bytes) {
    ASSERT_TRUE(write_file_atomic(folder_ / name, bytes).ok());
  }
  void fails(Code code, const std::string& says) {
    auto source = open_source(folder_);
    ASSERT_FALSE(source.ok()) << says;
    EXPECT_EQ(source.status().code(), code) << source.status().to_string();
    EXPECT_NE(source.status().message().find(says), std::string::npos) << source.status().message();
  }
  fs::path folder_;
};

TEST(Source, OpensEveryGoldenCheckpoint) {
  for (const char* name : {"gemma2", "gemma3", "llama", "llama-bias", "mistral", "mixtral", "phi3",
                           "phi3-longrope", "qwen2", "qwen2-yarn", "qwen3", "qwen3-moe"}) {
    auto source = open_source(golden(name));
    ASSERT_TRUE(source.ok()) << name << ": " << source.status().to_string();
    EXPECT_FALSE((*source)->is_gguf());
    EXPECT_EQ((*source)->config()["hidden_size"], 64) << name;
    const TensorInfo* embedding = (*source)->find("model.embed_tokens.weight");
    ASSERT_NE(embedding, nullptr) << name;
    EXPECT_EQ(embedding->shape, (std::vector<uint64_t>{512, 64})) << name;
    EXPECT_EQ(embedding->data().size(), embedding->bytes);
    EXPECT_TRUE((*source)->generation_config().contains("eos_token_id")) << name;
  }
}

TEST(Source, OpensEveryGoldenGguf) {
  for (const char* name : {"llama-f16", "llama-q8_0", "llama-q4_0", "llama-k256-q4_k_m", "llama-k256-q5_k_s",
                           "llama-k256-q6_k"}) {
    const fs::path path = golden("gguf") / (std::string(name) + ".gguf");
    auto source = open_source(path);
    ASSERT_TRUE(source.ok()) << name << ": " << source.status().to_string();
    EXPECT_TRUE((*source)->is_gguf());
    EXPECT_NE((*source)->gguf(), nullptr);
    EXPECT_EQ((*source)->file_bytes(), fs::file_size(path));
    EXPECT_EQ((*source)->config()["model_type"], "llama");
    EXPECT_NE((*source)->find("blk.1.attn_q.weight"), nullptr);
  }
  auto folder = open_source(golden("gguf"));
  EXPECT_EQ(folder.status().code(), Code::kInvalidArgument);  // six models: which one?
}

TEST_F(Folder, TakesShardsByTheIndex) {
  write("config.json", "{}");
  write("one.safetensors", safetensors_of({"a", "b"}));
  write("two.safetensors", safetensors_of({"c", "unlisted"}));
  write("stray.safetensors", "rubbish");
  write("model.safetensors.index.json",
        R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}})");
  auto source = open_source(folder_);
  ASSERT_TRUE(source.ok()) << source.status().to_string();
  EXPECT_EQ((*source)->tensors().size(), 3u);
  EXPECT_EQ((*source)->find("unlisted"), nullptr);
  EXPECT_EQ((*source)->generation_config(), Json::object());
  EXPECT_EQ((*source)->file_bytes(),
            safetensors_of({"a", "b"}).size() + safetensors_of({"c", "unlisted"}).size());
}

TEST_F(Folder, RefusesWrongIndexes) {
  write("config.json", "{}");
  write("one.safetensors", safetensors_of({"a", "b"}));
  write("two.safetensors", safetensors_of({"b"}));
  ASSERT_TRUE(write_file_atomic(folder_.parent_path() / "out.safetensors", safetensors_of({"a"})).ok());
  const std::string outside = (folder_.parent_path() / "out.safetensors").string();
  for (const std::string& file :
       {std::string("../out.safetensors"), outside, std::string(".."), std::string(),
        std::string("sub/one.safetensors"), std::string("..\\\\out.safetensors")}) {
    write("model.safetensors.index.json", R"({"weight_map":{"a":")" + file + "\"}}");
    fails(Code::kCorrupt, "not a name in the model's folder");
  }
  write("model.safetensors.index.json", R"({"weight_map":{"a":"three.safetensors"}})");
  fails(Code::kCorrupt, "names three.safetensors, which is missing");
  write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","z":"one.safetensors"}})");
  fails(Code::kCorrupt, "lacks 1 tensors");
  write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  fails(Code::kCorrupt, "tensor b is in one.safetensors");
  write("model.safetensors.index.json", R"({"weights":{}})");
  fails(Code::kCorrupt, "no weight_map");
  write("model.safetensors.index.json", "{");
  fails(Code::kCorrupt, "not valid JSON");
}

TEST_F(Folder, SaysWhatIsMissing) {
  fails(Code::kNotFound, "is no model");
  write("config.json", "{}");
  fails(Code::kNotFound, "no .safetensors file");
  write("x.safetensors", safetensors_of({"a"}));
  EXPECT_TRUE(open_source(folder_).ok());
  write("y.safetensors", safetensors_of({"b"}));
  fails(Code::kInvalidArgument, "2 .safetensors files");
  write("model.safetensors", safetensors_of({"c"}));
  auto source = open_source(folder_);
  ASSERT_TRUE(source.ok());
  EXPECT_NE((*source)->find("c"), nullptr);
  write("config.json", "[]");
  fails(Code::kCorrupt, "not a JSON object");
  EXPECT_EQ(open_source(folder_ / "absent").status().code(), Code::kNotFound);
}

TEST_F(Folder, ManifestHashesEveryTensor) {
  write("config.json", "{}");
  write("model.safetensors", safetensors_of({"b", "a"}));
  auto source = open_source(folder_);
  ASSERT_TRUE(source.ok());
  auto manifest = tensor_manifest(**source);
  ASSERT_TRUE(manifest.ok());
  const std::string star = to_hex(sha256(as_bytes("*")));
  const Json expected = {{{"name", "a"}, {"dtype", "U8"}, {"shape", {1}}, {"bytes", 1}, {"sha256", star}},
                         {{"name", "b"}, {"dtype", "U8"}, {"shape", {1}}, {"bytes", 1}, {"sha256", star}}};
  EXPECT_EQ(*manifest, expected);
}

}  // namespace
}  // namespace tessera::checkpoint
