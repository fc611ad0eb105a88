#include "fetch/download.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "fetch/fake_hub.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUrl = "http://hub.test/file";
const std::string kBody = "0123456789abcdefghijklmnopqrstuvwxyz";

class Downloads : public ::testing::Test, public Progress {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / ("download_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    hub_.serve("/file", {.body = kBody});
  }
  void TearDown() override { fs::remove_all(folder_); }
  void on_file(const std::string& name, uint64_t total, uint64_t done) override {
    EXPECT_EQ(name, "sub/f.bin");
    EXPECT_EQ(total, kBody.size());
    last_done_ = done;
  }
  RemoteFile file() const { return {"sub/f.bin", kBody.size(), to_hex(sha256(as_bytes(kBody)))}; }
  Status download(const RemoteFile& file) {
    return download_file(hub_.access("t"), kUrl, file, folder_, this);
  }
  fs::path part() const { return folder_ / ("sub/f.bin." + file().sum.substr(0, 16) + ".part"); }
  void expect_whole() {
    auto text = read_file(folder_ / "sub/f.bin");
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(*text, kBody);
    EXPECT_FALSE(fs::exists(part()));
  }
  FakeHub hub_;
  fs::path folder_;
  uint64_t last_done_ = 0;
};

TEST_F(Downloads, BringsAFile) {
  ASSERT_TRUE(download(file()).ok());
  expect_whole();
  EXPECT_EQ(last_done_, kBody.size());
  EXPECT_EQ(hub_.requests[0].range_from, std::nullopt);
}

TEST_F(Downloads, ChecksGitBlobIds) {
  RemoteFile small = file();
  small.sum = git_blob_id(as_bytes(kBody));
  ASSERT_TRUE(download(small).ok());
  small.sum = std::string(40, '0');
  EXPECT_EQ(download(small).code(), Code::kCorrupt);
}

TEST_F(Downloads, FollowsARedirectWithoutTheToken) {
  hub_.serve("/file", {.status = 302, .headers = {{"Location", "http://cdn.test/blob"}}, .body = "moved"});
  hub_.serve("http://cdn.test/blob", {.body = kBody});
  ASSERT_TRUE(download(file()).ok());
  expect_whole();
  EXPECT_EQ(hub_.requests[0].header("Authorization"), "Bearer t");
  EXPECT_EQ(hub_.requests[1].header("Authorization"), "");
}

TEST_F(Downloads, ResumesABrokenTransfer) {
  hub_.once("/file", {.body = kBody, .break_after = 10});
  hub_.once("/file", {.status = 500});
  hub_.once("/file", {.body = kBody, .break_after = 8});  // of what is left
  ASSERT_TRUE(download(file()).ok());
  expect_whole();
  ASSERT_EQ(hub_.requests.size(), 4u);
  EXPECT_EQ(hub_.requests[1].range_from, 10u);
  EXPECT_EQ(hub_.requests[3].range_from, 18u);
}

TEST_F(Downloads, ResumesAcrossCalls) {
  for (int i = 0; i < 3; ++i) hub_.once("/file", {.status = 503});
  ASSERT_TRUE(write_file_atomic(folder_ / "x", "").ok());
  fs::create_directories(folder_ / "sub");
  ASSERT_TRUE(write_file_atomic(part(), kBody.substr(0, 12)).ok());
  EXPECT_EQ(download(file()).code(), Code::kUnavailable);
  ASSERT_TRUE(download(file()).ok());
  expect_whole();
  EXPECT_EQ(hub_.requests.back().range_from, 12u);
}

TEST_F(Downloads, StartsAgainWhereTheServerKnowsNoRanges) {
  hub_.serve("/file", {.body = kBody, .ranges = false});
  hub_.once("/file", {.body = kBody, .ranges = false, .break_after = 20});
  ASSERT_TRUE(download(file()).ok());
  expect_whole();
}

TEST_F(Downloads, StartsAgainAfterAWrongRange) {
  hub_.once("/file", {.body = kBody, .break_after = 20});
  hub_.once("/file", {.status = 206, .headers = {{"Content-Range", "bytes 3-9/36"}}, .body = "3456789"});
  hub_.once("/file", {.status = 206, .body = "no Content-Range"});
  ASSERT_TRUE(download(file()).ok());
  expect_whole();
}

TEST_F(Downloads, RemovesAWrongFile) {
  hub_.serve("/file", {.body = std::string(kBody.size(), 'x')});
  const Status status = download(file());
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_NE(status.message().find("checksum"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(folder_ / "sub"));
  hub_.serve("/file", {.body = kBody + "and more"});
  EXPECT_EQ(download(file()).code(), Code::kCorrupt);
  EXPECT_TRUE(fs::is_empty(folder_ / "sub"));
}

TEST_F(Downloads, GivesUpOnShortFilesAndRefusals) {
  hub_.serve("/file", {.body = kBody.substr(0, 5), .ranges = false});
  RetryPolicy policy = FakeHub::quick();
  policy.max_attempts = 4;
  HubAccess access{hub_, FakeHub::kEndpoint, "", policy};
  EXPECT_EQ(download_file(access, kUrl, file(), folder_, nullptr).code(), Code::kUnavailable);
  EXPECT_EQ(hub_.requests.size(), 4u);
  hub_.serve("/file", {.status = 404});
  EXPECT_EQ(download(file()).code(), Code::kNotFound);
  hub_.serve("/file", {.status = 403});
  EXPECT_EQ(download(file()).code(), Code::kPermissionDenied);
}

TEST_F(Downloads, BringsAnEmptyFile) {
  hub_.serve("/file", {.body = ""});
  RemoteFile empty{"empty", 0, to_hex(sha256({}))};
  ASSERT_TRUE(download_file(hub_.access(), kUrl, empty, folder_, nullptr).ok());
  EXPECT_EQ(fs::file_size(folder_ / "empty"), 0u);
}

TEST_F(Downloads, RefusesUnsafeAndUncheckedFiles) {
  RemoteFile bad = file();
  bad.path = "../f";
  EXPECT_EQ(download_file(hub_.access(), kUrl, bad, folder_, nullptr).code(), Code::kInvalidArgument);
  bad = file();
  bad.sum.clear();
  EXPECT_EQ(download_file(hub_.access(), kUrl, bad, folder_, nullptr).code(), Code::kInvalidArgument);
  EXPECT_TRUE(hub_.requests.empty());
}

}  // namespace
}  // namespace tessera::fetch
