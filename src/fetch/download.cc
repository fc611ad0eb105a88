#include "fetch/download.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "base/files.h"
#include "base/sha256.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

class PartFile {
 public:
  explicit PartFile(fs::path path) : path_(std::move(path)) {}
  ~PartFile() { close(); }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  // Opens for writing at `offset`, dropping what lies behind it.
  Status open(uint64_t offset) {
    close();
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(offset)) != 0 ||
        ::lseek(fd_, static_cast<off_t>(offset), SEEK_SET) < 0)
      return io_error("cannot write " + path_.string(), errno);
    return {};
  }
  bool is_open() const { return fd_ >= 0; }
  Status write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return io_error("cannot write " + path_.string(), errno);
      bytes.remove_prefix(static_cast<size_t>(written));
    }
    return {};
  }
  Status sync() {
    if (fd_ >= 0 && ::fsync(fd_) != 0) return io_error("cannot sync " + path_.string(), errno);
    return {};
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  fs::path path_;
  int fd_ = -1;
};

uint64_t size_or_zero(const fs::path& path) {
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

// The first byte's position in "bytes 100-199/200".
std::optional<uint64_t> range_start(std::string_view content_range) {
  if (!content_range.starts_with("bytes ")) return std::nullopt;
  content_range.remove_prefix(6);
  uint64_t start = 0;
  const auto [end, error] =
      std::from_chars(content_range.data(), content_range.data() + content_range.size(), start);
  if (error != std::errc() || end == content_range.data() + content_range.size() || *end != '-')
    return std::nullopt;
  return start;
}

class Download {
 public:
  Download(const HubAccess& hub, const std::string& url, const RemoteFile& file, fs::path part,
           Progress* progress)
      : hub_(hub), url_(url), file_(file), part_path_(std::move(part)), progress_(progress) {}

  // One request for what is missing.
  Status attempt(bool& progressed) {
    uint64_t have = size_or_zero(part_path_);
    if (file_.bytes && have > *file_.bytes) have = 0;
    if (file_.bytes && have == *file_.bytes && have > 0) return {};
    HttpGet request{url_, {{"Accept-Encoding", "identity"}}};
    if (have > 0) request.range_from = have;
    PartFile part(part_path_);
    uint64_t done = have;
    auto begin = [&](const HttpHead& head) -> Status {
      if (head.status != 206) done = 0;  // the server sends the whole file
      if (head.status == 206 && range_start(head.header("Content-Range")) != have) {
        TESSERA_RETURN_IF_ERROR(part.open(0));
        return unavailable(file_.path + ": the server sent another range than asked for");
      }
      return part.open(done);
    };
    auto sink = [&](const HttpHead& head, std::string_view piece) -> Status {
      if (head.status != 200 && head.status != 206) return {};
      if (!part.is_open()) TESSERA_RETURN_IF_ERROR(begin(head));
      done += piece.size();
      if (file_.bytes && done > *file_.bytes)
        return corrupt(file_.path + ": the server sends more than the file has");
      TESSERA_RETURN_IF_ERROR(part.write(piece));
      progressed = progressed || !piece.empty();
      if (progress_ != nullptr) progress_->on_file(file_.path, file_.bytes.value_or(0), done);
      return {};
    };
    HttpTrail trail;
    TESSERA_RETURN_IF_ERROR(get_following(hub_.http, request, hub_.token, sink, trail));
    const HttpHead& head = trail.back();
    if (head.status == 416 && have > 0) {
      TESSERA_RETURN_IF_ERROR(part.open(0));
      return unavailable(file_.path + ": the server does not go on where the transfer broke off");
    }
    TESSERA_RETURN_IF_ERROR(status_of_reply(head.status, file_.path));
    if (!part.is_open()) TESSERA_RETURN_IF_ERROR(begin(head));  // an empty body
    if (file_.bytes && done < *file_.bytes) return unavailable(file_.path + ": the transfer broke off");
    return part.sync();
  }

 private:
  const HubAccess& hub_;
  const std::string& url_;
  const RemoteFile& file_;
  fs::path part_path_;
  Progress* progress_;
};

}  // namespace

Result<bool> file_matches(const fs::path& path, const std::string& sum) {
  TESSERA_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
  const std::string actual = sum.size() == 64 ? to_hex(sha256(file->bytes())) : git_blob_id(file->bytes());
  return actual == sum;
}

Status download_file(const HubAccess& hub, const std::string& url, const RemoteFile& file,
                     const fs::path& folder, Progress* progress) {
  if (!is_safe_path(file.path) || file.sum.empty())
    return invalid_argument("'" + file.path + "' cannot be downloaded: no safe path or no checksum");
  const fs::path target = folder / file.path;
  fs::path part = target;
  part += "." + file.sum.substr(0, 16) + ".part";
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  if (error) return io_error("cannot create " + target.parent_path().string(), error.value());
  Download download(hub, url, file, part, progress);
  Status status = with_retries(hub.retry, [&](bool& progressed) { return download.attempt(progressed); });
  if (status.code() == Code::kCorrupt) fs::remove(part, error);
  TESSERA_RETURN_IF_ERROR(status);
  TESSERA_ASSIGN_OR_RETURN(bool good, file_matches(part, file.sum));
  if (!good) {
    fs::remove(part, error);
    return corrupt(file.path + " is not what the hub promised: its checksum differs; the file was removed");
  }
  fs::rename(part, target, error);
  if (error) return io_error("cannot rename to " + target.string(), error.value());
  return {};
}

}  // namespace tessera::fetch
