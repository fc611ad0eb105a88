#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace tessera {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status open_error(const std::filesystem::path& path, int error) {
  if (error == ENOENT) return not_found(path.string() + " does not exist");
  return io_error("cannot open " + path.string(), error);
}

Status write_all(int fd, std::string_view contents, const std::filesystem::path& path) {
  while (!contents.empty()) {
    ssize_t written = ::write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return io_error("cannot write " + path.string(), errno);
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path, uint64_t max_bytes) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return open_error(path, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return io_error("cannot stat " + path.string(), errno);
  if (S_ISDIR(info.st_mode)) return invalid_argument(path.string() + " is a folder, not a file");
  std::string contents;
  contents.reserve(static_cast<size_t>(info.st_size));
  char buffer[1 << 16];
  for (;;) {
    ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("cannot read " + path.string(), errno);
    if (got == 0) return contents;
    if (contents.size() + static_cast<size_t>(got) > max_bytes)
      return invalid_argument(path.string() + " is larger than " + std::to_string(max_bytes) + " bytes");
    contents.append(buffer, static_cast<size_t>(got));
  }
}

Status write_file_atomic(const std::filesystem::path& path, std::string_view contents) {
  static std::atomic<uint64_t> counter{0};
  std::filesystem::path temporary = path;
  temporary += ".tmp" + std::to_string(::getpid()) + "." + std::to_string(counter.fetch_add(1));
  {
    Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (fd.get() < 0) return io_error("cannot create " + temporary.string(), errno);
    Status status = write_all(fd.get(), contents, temporary);
    if (status.ok() && ::fsync(fd.get()) != 0) status = io_error("cannot sync " + temporary.string(), errno);
    if (!status.ok()) {
      ::unlink(temporary.c_str());
      return status;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    Status status = io_error("cannot rename to " + path.string(), errno);
    ::unlink(temporary.c_str());
    return status;
  }
  return {};
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return open_error(path, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return io_error("cannot stat " + path.string(), errno);
  if (!S_ISREG(info.st_mode)) return invalid_argument(path.string() + " is not a regular file");
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(path, nullptr, 0));
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED) return io_error("cannot map " + path.string(), errno);
  return std::shared_ptr<const MappedFile>(new MappedFile(path, static_cast<const uint8_t*>(data), size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

namespace {
void advise(const uint8_t* data, uint64_t size, uint64_t offset, uint64_t length, int advice) {
  if (data == nullptr || offset >= size) return;
  const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  const uint64_t end = length > size - offset ? size : offset + length;
  ::madvise(const_cast<uint8_t*>(data) + begin, end - begin, advice);
}
}  // namespace

void MappedFile::will_need(uint64_t offset, uint64_t length) const {
  advise(data_, size_, offset, length, MADV_WILLNEED);
}
void MappedFile::dont_need(uint64_t offset, uint64_t length) const {
  advise(data_, size_, offset, length, MADV_DONTNEED);
}

}  // namespace tessera
