#include "fetch/store.h"

#include <gtest/gtest.h>

#include "base/files.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

class Stores : public ::testing::Test {
 protected:
  void SetUp() override {
    store_.root = fs::path(::testing::TempDir()) / ("store_" + std::to_string(::getpid())) / "models";
  }
  void TearDown() override { fs::remove_all(store_.root.parent_path()); }
  // A pulled model of one file.
  void publish(const std::string& name, const std::string& contents) {
    const fs::path partial = store_.partial_folder(name);
    fs::create_directories(partial);
    ASSERT_TRUE(write_file_atomic(partial / "m.gguf", contents).ok());
    auto model =
        store_.publish({name, partial / "m.gguf", "gguf", "test", {{"m.gguf", contents.size(), "sum"}}});
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    EXPECT_EQ(model->path, store_.folder(name) / "m.gguf");
  }
  ModelStore store_;
};

TEST_F(Stores, ListsFindsAndRemoves) {
  EXPECT_TRUE(store_.list()->empty());
  publish("org/name@main:m.gguf", "four");
  publish("a:1", "x");
  auto list = store_.list();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].name, "a:1");
  EXPECT_EQ((*list)[1].name, "org/name@main:m.gguf");
  EXPECT_EQ((*list)[1].bytes(), 4u);
  EXPECT_EQ((*list)[1].format, "gguf");
  auto found = store_.find("org/name@main:m.gguf");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*read_file(found->path), "four");
  ASSERT_TRUE(store_.remove("org/name@main:m.gguf").ok());
  EXPECT_EQ(store_.find("org/name@main:m.gguf").status().code(), Code::kNotFound);
  EXPECT_EQ(store_.remove("org/name@main:m.gguf").code(), Code::kNotFound);
  EXPECT_EQ(store_.list()->size(), 1u);
}

TEST_F(Stores, ReplacesAnOlderPull) {
  publish("m", "old");
  publish("m", "newer");
  EXPECT_EQ(*read_file(store_.find("m")->path), "newer");
  EXPECT_EQ(store_.list()->size(), 1u);
  EXPECT_TRUE(fs::is_empty(store_.root / ".partial"));
}

TEST_F(Stores, KeepsNamesApartAndInside) {
  EXPECT_EQ(store_.folder("../x").parent_path(), store_.root);
  EXPECT_NE(store_.folder("a/b"), store_.folder("a%2Fb"));
  EXPECT_NE(store_.folder("a/b"), store_.folder("a:b"));
}

TEST_F(Stores, RemovesAPartialPull) {
  fs::create_directories(store_.partial_folder("m"));
  ASSERT_TRUE(store_.remove("m").ok());
  EXPECT_FALSE(fs::exists(store_.partial_folder("m")));
}

TEST_F(Stores, LeavesOutBrokenRecords) {
  publish("good", "x");
  fs::create_directories(store_.root / "bad");
  ASSERT_TRUE(write_file_atomic(store_.root / "bad" / ".tessera-model.json", R"({"name":7})").ok());
  fs::create_directories(store_.root / "worse");
  const std::string escaping =
      R"({"name":"worse","format":"gguf","origin":"","path":"../good/m.gguf","files":[]})";
  ASSERT_TRUE(write_file_atomic(store_.root / "worse" / ".tessera-model.json", escaping).ok());
  EXPECT_EQ(store_.list()->size(), 1u);
  EXPECT_EQ(store_.find("worse").status().code(), Code::kCorrupt);
}

TEST_F(Stores, LocksAModelForOne) {
  auto lock = ModelLock::acquire(store_, "m");
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(ModelLock::acquire(store_, "m").status().code(), Code::kResourceExhausted);
  EXPECT_TRUE(ModelLock::acquire(store_, "n").ok());
  EXPECT_EQ(store_.remove("m").code(), Code::kResourceExhausted);
  lock->reset();
  EXPECT_TRUE(ModelLock::acquire(store_, "m").ok());
}

}  // namespace
}  // namespace tessera::fetch
