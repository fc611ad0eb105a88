#include "fetch/hub_reader.h"

#include <gtest/gtest.h>

#include "fetch/fake_hub.h"

namespace tessera::fetch {
namespace {

class HubReaderTest : public ::testing::Test {
 protected:
  HubReaderTest() {
    for (int i = 0; i < 10'000; ++i) file_ += static_cast<char>(i * 31 % 251);
    hub_.add_file("model.safetensors", file_, true);
    reader_ = make_hub_reader({hub_, FakeHub::kEndpoint, "", {}}, *parse_hub_name("org/name"));
  }
  Result<std::string> read(uint64_t offset, uint64_t bytes) {
    std::string got;
    Status status = reader_->read("model.safetensors", offset, bytes, [&got](std::span<const uint8_t> piece) {
      got.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      return Status();
    });
    if (!status.ok()) return status;
    return got;
  }
  FakeHub hub_;
  std::string file_;
  std::unique_ptr<RangeReader> reader_;
};

TEST_F(HubReaderTest, ReadsExactlyTheRange) {
  auto middle = read(4000, 1500);
  ASSERT_TRUE(middle.ok()) << middle.status().to_string();
  EXPECT_EQ(*middle, file_.substr(4000, 1500));
  EXPECT_EQ(*read(0, 10'000), file_);
  EXPECT_EQ(read(9'000, 1'001).status().code(), Code::kCorrupt);
}

TEST_F(HubReaderTest, AHubWithoutRangesIsReadFromTheBeginning) {
  const std::string url = "/org/name/resolve/main/model.safetensors";
  hub_.once(url, {200, {}, file_, false});
  auto middle = read(4000, 1500);
  ASSERT_TRUE(middle.ok()) << middle.status().to_string();
  EXPECT_EQ(*middle, file_.substr(4000, 1500));
}

TEST_F(HubReaderTest, WhatTheHubRefusesIsSaid) {
  hub_.once("/org/name/resolve/main/model.safetensors", {404, {}, "no such file", false});
  EXPECT_EQ(read(0, 10).status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace tessera::fetch
