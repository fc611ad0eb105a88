#include "fetch/mirror.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

// A random model in safetensors form that the parity tests use.
const fs::path kModel = fs::path(TESSERA_SOURCE_DIR) / "tests/parity/models/llama";

// Serves a folder and may go wrong on purpose.
class FlakyReader final : public RangeReader {
 public:
  FlakyReader(std::string name, fs::path folder)
      : name_(std::move(name)), disk_(make_disk_reader(std::move(folder))) {}
  const std::string& name() const override { return name_; }
  Status read(const std::string& path, uint64_t offset, uint64_t bytes,
              const std::function<Status(std::span<const uint8_t>)>& sink) override {
    ++reads;
    if (fail_after-- == 0) return unavailable("the connection ended");
    return disk_->read(path, offset, bytes, [&](std::span<const uint8_t> got) {
      if (!corrupt_bytes) return sink(got);
      std::vector<uint8_t> bad(got.begin(), got.end());
      bad[bad.size() / 2] ^= 1;
      return sink(bad);
    });
  }
  bool corrupt_bytes = false;
  int fail_after = -1;
  int reads = 0;

 private:
  const std::string name_;
  std::unique_ptr<RangeReader> disk_;
};

class MirrorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("mirror-" + std::to_string(::getpid()));
    fs::remove_all(root_);
    auto source = checkpoint::open_source(kModel);
    ASSERT_TRUE(source.ok()) << source.status().to_string();
    source_ = *source;
    auto manifest = make_mirror_manifest(*source_, "m", "");
    ASSERT_TRUE(manifest.ok()) << manifest.status().to_string();
    manifest_ = *manifest;
  }
  void TearDown() override { fs::remove_all(root_); }
  std::vector<std::string> tensors_of_block(int block) const {
    std::vector<std::string> names;
    for (const auto& tensor : source_->tensors())
      if (tensor.name.find("layers." + std::to_string(block) + ".") != std::string::npos)
        names.push_back(tensor.name);
    return names;
  }

  fs::path root_;
  std::shared_ptr<const checkpoint::Source> source_;
  MirrorManifest manifest_;
};

TEST_F(MirrorTest, HoldsTheBytesOfItsTensorsAndNoOthers) {
  auto mirror = Mirror::open(root_, manifest_);
  ASSERT_TRUE(mirror.ok()) << mirror.status().to_string();
  FlakyReader origin("origin", kModel);
  RangeReader* readers[] = {&origin};
  const std::vector<std::string> names = tensors_of_block(1);
  ASSERT_FALSE(names.empty());
  MirrorProgress last;
  ASSERT_TRUE((*mirror)
                  ->ensure(names, readers,
                           [&](const MirrorProgress& p) {
                             last = p;
                             return Status();
                           })
                  .ok());
  EXPECT_EQ(last.done, last.total);
  auto copy = checkpoint::open_source((*mirror)->main_path());
  ASSERT_TRUE(copy.ok()) << copy.status().to_string();
  uint64_t own = 0;
  for (const auto& tensor : source_->tensors()) {
    const auto* there = (*copy)->find(tensor.name);
    ASSERT_NE(there, nullptr);
    const bool wanted = std::find(names.begin(), names.end(), tensor.name) != names.end();
    const bool equal = std::equal(tensor.data().begin(), tensor.data().end(), there->data().begin());
    EXPECT_EQ(equal, wanted) << tensor.name;
    if (wanted) own += tensor.bytes;
  }
  EXPECT_LT(last.fetched, own + (64u << 10)) << "headers and own tensors only";
  auto served = (*mirror)->read(manifest_.files[0].path, copy.value()->find(names[0])->offset, 16);
  ASSERT_TRUE(served.ok());
  EXPECT_EQ((*mirror)->read(manifest_.files[0].path, 0, manifest_.files[0].bytes).status().code(),
            Code::kNotFound);
  EXPECT_EQ((*mirror)->read("../secret", 0, 1).status().code(), Code::kNotFound);
}

TEST_F(MirrorTest, ALyingOrBrokenSourceIsLeftForTheNext) {
  auto mirror = Mirror::open(root_, manifest_);
  FlakyReader liar("liar", kModel), origin("origin", kModel);
  liar.corrupt_bytes = true;
  RangeReader* only_liar[] = {&liar};
  const Status status = (*mirror)->ensure(tensors_of_block(0), only_liar, nullptr);
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_NE(status.message().find("liar"), std::string::npos) << status.message();
  RangeReader* both[] = {&liar, &origin};
  EXPECT_TRUE((*mirror)->ensure(tensors_of_block(0), both, nullptr).ok());
}

TEST_F(MirrorTest, GoesOnWhereItStoppedAndTrustsNoOldByte) {
  const std::vector<std::string> names = tensors_of_block(0);
  {
    auto mirror = Mirror::open(root_, manifest_);
    FlakyReader origin("origin", kModel);
    origin.fail_after = 4;
    RangeReader* readers[] = {&origin};
    EXPECT_EQ((*mirror)->ensure(names, readers, nullptr).code(), Code::kUnavailable);
  }
  FlakyReader origin("origin", kModel);
  RangeReader* readers[] = {&origin};
  {
    auto mirror = Mirror::open(root_, manifest_);
    ASSERT_TRUE((*mirror)->ensure(names, readers, nullptr).ok());
    EXPECT_GT(origin.reads, 0);
    // Somebody writes over what is there.
    const auto copy = checkpoint::open_source((*mirror)->main_path());
    std::fstream file((*mirror)->main_path() / manifest_.files[0].path,
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>((*copy)->find(names[0])->offset));
    file.put('\x55');
    file.put('\xaa');
  }
  auto mirror = Mirror::open(root_, manifest_);
  origin.reads = 0;
  ASSERT_TRUE((*mirror)->ensure(names, readers, nullptr).ok());
  EXPECT_EQ(origin.reads, 1) << "the spoilt tensor alone";
}

TEST_F(MirrorTest, AManifestIsHostile) {
  const Json good = manifest_.to_json();
  auto round = MirrorManifest::from_json(good);
  ASSERT_TRUE(round.ok()) << round.status().to_string();
  EXPECT_EQ(round->id(), manifest_.id());
  auto refused = [&](auto change) {
    Json bad = good;
    change(bad);
    return MirrorManifest::from_json(bad).status().code() == Code::kCorrupt;
  };
  EXPECT_TRUE(refused([](Json& j) { j["files"][0]["path"] = "../../etc/passwd"; }));
  EXPECT_TRUE(refused([](Json& j) { j["files"][0]["path"] = "/etc/passwd"; }));
  EXPECT_TRUE(refused([](Json& j) { j["main"] = ".."; }));
  EXPECT_TRUE(refused([](Json& j) { j["pieces"][0]["offset"] = uint64_t{1} << 60; }));
  EXPECT_TRUE(refused([](Json& j) { j["pieces"][0]["file"] = 99; }));
  EXPECT_TRUE(refused([](Json& j) { j["pieces"][0]["sha256"] = "zz"; }));
  EXPECT_TRUE(refused([](Json& j) { j["pieces"][0].erase("bytes"); }));
  EXPECT_TRUE(refused([](Json& j) { j["files"] = 3; }));
  EXPECT_TRUE(refused([](Json& j) { j = Json::array(); }));
}

}  // namespace
}  // namespace tessera::fetch
