// Files as values: whole reads, memory maps, atomic writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera {

// The whole file; refuses more than max_bytes so that a wrong path cannot fill the memory.
Result<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{1} << 30);

// Writes beside the target, fsyncs, renames: readers see the old or the new file, never half of one.
Status write_file_atomic(const std::filesystem::path& path, std::string_view contents);

// A read-only private memory map. The pages are read lazily, so a map of a 100 GB file costs what is touched.
// Immutable, so shareable between threads; a file truncated by others while mapped raises SIGBUS (documented
// limit).
class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that these bytes are needed soon / no longer (best effort).
  void will_need(uint64_t offset, uint64_t length) const;
  void dont_need(uint64_t offset, uint64_t length) const;

 private:
  MappedFile(std::filesystem::path path, const uint8_t* data, uint64_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  std::filesystem::path path_;
  const uint8_t* data_;
  uint64_t size_;
};

}  // namespace tessera
