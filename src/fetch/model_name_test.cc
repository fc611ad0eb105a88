#include "fetch/model_name.h"

#include <gtest/gtest.h>

namespace tessera::fetch {
namespace {

TEST(ModelName, ParsesHubNames) {
  auto plain = parse_hub_name("org/name");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->repository, "org/name");
  EXPECT_EQ(plain->revision, "main");
  EXPECT_EQ(plain->file, "");
  auto full = parse_hub_name("Org-1/Na.me_2@refs/pr/1:sub folder/m.gguf");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->repository, "Org-1/Na.me_2");
  EXPECT_EQ(full->revision, "refs/pr/1");
  EXPECT_EQ(full->file, "sub folder/m.gguf");
}

TEST(ModelName, RefusesWhatIsNoHubName) {
  for (const char* name :
       {"", "name", "a/b/c", "/b", "a/", "../b", "a/..", "a/b@", "a/b@../x", "a/b:", "a/b:/x", "a/b:../x",
        "a/b:x/../../y", "a b/c", "a/b?x", "a/b@x y", "a/b:x\\y", "a/b:.hidden"})
    EXPECT_FALSE(parse_hub_name(name).ok()) << name;
  EXPECT_FALSE(parse_hub_name("a/" + std::string(1000, 'b')).ok());
}

TEST(ModelName, KnowsPathsThatStayInside) {
  for (const char* path : {"a", "a/b.gguf", "a b/c", "a..b"}) EXPECT_TRUE(is_safe_path(path)) << path;
  for (const char* path :
       {"", "/a", "a//b", "a/", "..", "a/../b", "./a", "a/./b", ".git", "a/.b", "a\\b", "a\nb"})
    EXPECT_FALSE(is_safe_path(path)) << path;
  EXPECT_FALSE(is_safe_path(std::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace tessera::fetch
