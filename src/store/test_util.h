// A folder for a test's files, removed with the object; a clock that the test moves.
#pragma once

#include <stdlib.h>

#include <filesystem>

#include "base/clock.h"

namespace tessera::store {

class TestFolder {
 public:
  TestFolder() {
    std::string path = std::filesystem::temp_directory_path() / "tessera-store-XXXXXX";
    if (::mkdtemp(path.data())) path_ = path;
  }
  ~TestFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class ManualClock final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  int64_t unix_time_ms() const override {
    return 1'700'000'000'000 + std::chrono::duration_cast<std::chrono::milliseconds>(now_).count();
  }
  void advance(MonotonicTime by) { now_ += by; }

 private:
  MonotonicTime now_{0};
};

}  // namespace tessera::store
