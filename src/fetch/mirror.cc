#include "fetch/mirror.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "fetch/model_name.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSmallFile = uint64_t{16} << 20;
constexpr size_t kMaxFiles = 4096, kMaxPieces = size_t{1} << 20;
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 46;
constexpr const char* kIndex = ".pieces";

bool from_hex(std::string_view hex, Digest& out) {
  if (hex.size() != 2 * out.size()) return false;
  auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

class DiskReader final : public RangeReader {
 public:
  explicit DiskReader(fs::path folder) : folder_(std::move(folder)) {}
  const std::string& name() const override { return name_; }
  Status read(const std::string& path, uint64_t offset, uint64_t bytes,
              const std::function<Status(std::span<const uint8_t>)>& sink) override {
    const int file = ::open((folder_ / path).c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return io_error((folder_ / path).string(), errno);
    std::vector<uint8_t> buffer(size_t{1} << 20);
    Status status;
    while (bytes > 0 && status.ok()) {
      const ssize_t got =
          ::pread(file, buffer.data(), std::min<uint64_t>(buffer.size(), bytes), static_cast<off_t>(offset));
      if (got <= 0) {
        status = got < 0 ? io_error((folder_ / path).string(), errno) : corrupt(path + " is too short");
        break;
      }
      status = sink({buffer.data(), static_cast<size_t>(got)});
      offset += static_cast<uint64_t>(got);
      bytes -= static_cast<uint64_t>(got);
    }
    ::close(file);
    return status;
  }

 private:
  const fs::path folder_;
  const std::string name_ = "disk";
};

}  // namespace

bool is_worker_file(std::string_view name) {
  return name == "config.json" || name == "generation_config.json" ||
         (name.ends_with(".safetensors.index.json") && name.find('/') == std::string_view::npos);
}

std::unique_ptr<RangeReader> make_disk_reader(fs::path folder) {
  return std::make_unique<DiskReader>(std::move(folder));
}

// --- manifest
// --------------------------------------------------------------------------------------------------------

Digest MirrorManifest::id() const {
  Sha256 hash;
  for (const File& file : files) hash.update(as_bytes(file.path + '\0' + std::to_string(file.bytes) + '\n'));
  for (const MirrorPiece& piece : pieces) {
    hash.update(as_bytes(std::to_string(piece.file) + ' ' + std::to_string(piece.offset) + ' '));
    hash.update(piece.sha256);
  }
  return hash.finish();
}

Json MirrorManifest::to_json() const {
  Json json{{"model", model},
            {"origin", origin},
            {"main", main},
            {"files", Json::array()},
            {"pieces", Json::array()}};
  for (const File& file : files) json["files"].push_back({{"path", file.path}, {"bytes", file.bytes}});
  for (const MirrorPiece& piece : pieces)
    json["pieces"].push_back({{"name", piece.name},
                              {"file", piece.file},
                              {"offset", piece.offset},
                              {"bytes", piece.bytes},
                              {"sha256", to_hex(piece.sha256)}});
  return json;
}

Result<MirrorManifest> MirrorManifest::from_json(const Json& json) {
  auto wrong = [](std::string what) { return corrupt("the model's manifest: " + std::move(what)); };
  MirrorManifest manifest;
  try {
    manifest.model = json.at("model").get<std::string>();
    manifest.origin = json.value("origin", "");
    manifest.main = json.at("main").get<std::string>();
    if (json.at("files").size() > kMaxFiles || json.at("pieces").size() > kMaxPieces)
      return wrong("too many files or pieces");
    for (const Json& entry : json.at("files")) {
      File file{entry.at("path").get<std::string>(), entry.at("bytes").get<uint64_t>()};
      if (!is_safe_path(file.path) || file.path == kIndex)
        return wrong("the path '" + file.path + "' is not allowed");
      if (file.bytes > kMaxFileBytes) return wrong(file.path + " is too large");
      manifest.files.push_back(std::move(file));
    }
    if (!manifest.main.empty() && !is_safe_path(manifest.main))
      return wrong("main is not a path in the model");
    for (const Json& entry : json.at("pieces")) {
      MirrorPiece piece;
      piece.name = entry.at("name").get<std::string>();
      piece.file = entry.at("file").get<uint32_t>();
      piece.offset = entry.at("offset").get<uint64_t>();
      piece.bytes = entry.at("bytes").get<uint64_t>();
      if (!from_hex(entry.at("sha256").get<std::string>(), piece.sha256))
        return wrong("a sum is not SHA-256");
      if (piece.file >= manifest.files.size()) return wrong("a piece of a file that is not listed");
      const uint64_t size = manifest.files[piece.file].bytes;
      if (piece.offset > size || piece.bytes > size - piece.offset)
        return wrong("a piece beyond its file's end");
      manifest.pieces.push_back(std::move(piece));
    }
  } catch (const Json::exception& error) {
    return wrong(error.what());
  }
  return manifest;
}

ModelFolder model_folder(const checkpoint::Source& source) {
  ModelFolder folder;
  const bool is_file = !fs::is_directory(source.path());
  folder.root = is_file ? source.path().parent_path() : source.path();
  if (is_file) folder.main = source.path().filename().string();
  std::set<const MappedFile*> seen;  // a path costs system calls: once a file, not once a tensor
  for (const checkpoint::TensorInfo& tensor : source.tensors())
    if (seen.insert(tensor.file.get()).second)
      folder.weights[fs::relative(tensor.file->path(), folder.root).generic_string()] = tensor.file;
  return folder;
}

Result<MirrorManifest> make_mirror_manifest(const checkpoint::Source& source, std::string model,
                                            std::string origin) {
  const ModelFolder folder = model_folder(source);
  MirrorManifest manifest;
  manifest.model = std::move(model);
  manifest.origin = std::move(origin);
  manifest.main = folder.main;

  std::map<const MappedFile*, uint32_t> index;
  std::vector<uint64_t> first_tensor;  // where a file's header ends
  for (const auto& [path, file] : folder.weights) {
    index[file.get()] = static_cast<uint32_t>(manifest.files.size());
    manifest.files.push_back({path, file->bytes().size()});
    first_tensor.push_back(file->bytes().size());
  }
  for (const checkpoint::TensorInfo& tensor : source.tensors()) {
    const uint32_t file = index.at(tensor.file.get());
    first_tensor[file] = std::min(first_tensor[file], tensor.offset);
    manifest.pieces.push_back(
        {tensor.name, file, tensor.offset, tensor.bytes, tessera::sha256(tensor.data())});
    tensor.file->dont_need(tensor.offset, tensor.bytes);
  }
  for (const auto& [path, file] : folder.weights) {
    const uint32_t number = index.at(file.get());
    manifest.pieces.push_back(
        {"", number, 0, first_tensor[number], tessera::sha256(file->bytes().first(first_tensor[number]))});
  }
  if (folder.main.empty()) {
    std::vector<fs::path> small;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder.root, error))
      if (entry.is_regular_file(error) && is_worker_file(entry.path().filename().string()))
        small.push_back(entry.path());
    std::sort(small.begin(), small.end());
    for (const fs::path& path : small) {
      TESSERA_ASSIGN_OR_RETURN(std::string contents, read_file(path, kSmallFile));
      manifest.files.push_back({path.filename().string(), contents.size()});
      manifest.pieces.push_back({"", static_cast<uint32_t>(manifest.files.size() - 1), 0, contents.size(),
                                 tessera::sha256(as_bytes(contents))});
    }
  }
  return manifest;
}

// --- mirror
// ----------------------------------------------------------------------------------------------------------

Mirror::Mirror(fs::path folder, MirrorManifest manifest)
    : folder_(std::move(folder)),
      manifest_(std::move(manifest)),
      claimed_(manifest_.pieces.size()),
      present_(manifest_.pieces.size()) {}

Mirror::~Mirror() {
  for (int descriptor : descriptors_) ::close(descriptor);
}

Result<std::unique_ptr<Mirror>> Mirror::open(const fs::path& root, MirrorManifest manifest) {
  const std::string name = to_hex(manifest.id()).substr(0, 24);
  std::unique_ptr<Mirror> mirror(new Mirror(root / name, std::move(manifest)));
  TESSERA_RETURN_IF_ERROR(mirror->open_files());
  return mirror;
}

Status Mirror::open_files() {
  std::error_code error;
  for (const MirrorManifest::File& file : manifest_.files) {
    const fs::path path = folder_ / file.path;
    fs::create_directories(path.parent_path(), error);
    if (error) return io_error(path.parent_path().string(), error.value());
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) return io_error(path.string(), errno);
    descriptors_.push_back(descriptor);
    // Holes cost no disk.
    if (::ftruncate(descriptor, static_cast<off_t>(file.bytes)) != 0) return io_error(path.string(), errno);
  }
  std::map<std::string, size_t> by_sum;
  for (size_t i = 0; i < manifest_.pieces.size(); ++i) {
    const MirrorPiece& piece = manifest_.pieces[i];
    by_sum[std::to_string(piece.file) + ":" + std::to_string(piece.offset)] = i;
  }
  std::ifstream index(folder_ / kIndex);
  for (std::string line; std::getline(index, line);)
    if (auto found = by_sum.find(line); found != by_sum.end()) claimed_[found->second] = true;
  return {};
}

fs::path Mirror::main_path() const {
  return manifest_.main.empty() ? folder_ : folder_ / manifest_.main;
}

bool Mirror::is_right_on_disk(const MirrorPiece& piece) const {
  Sha256 hash;
  DiskReader disk(folder_);
  const Status status = disk.read(manifest_.files[piece.file].path, piece.offset, piece.bytes,
                                  [&hash](std::span<const uint8_t> bytes) {
                                    hash.update(bytes);
                                    return Status();
                                  });
  return status.ok() && hash.finish() == piece.sha256;
}

void Mirror::have(size_t piece) {
  {
    MutexLock lock(mutex_);
    present_[piece] = true;
  }
  if (claimed_[piece]) return;
  claimed_[piece] = true;
  std::ofstream index(folder_ / kIndex, std::ios::app);
  index << manifest_.pieces[piece].file << ':' << manifest_.pieces[piece].offset << '\n';
}

Status Mirror::ensure(std::span<const std::string> tensors, std::span<RangeReader* const> readers,
                      const std::function<Status(const MirrorProgress&)>& progress) {
  std::vector<std::string_view> wanted(tensors.begin(), tensors.end());
  std::sort(wanted.begin(), wanted.end());
  std::vector<size_t> todo;
  size_t known = 0;
  MirrorProgress count;
  for (size_t i = 0; i < manifest_.pieces.size(); ++i) {
    const MirrorPiece& piece = manifest_.pieces[i];
    const bool named = !piece.name.empty() && std::binary_search(wanted.begin(), wanted.end(), piece.name);
    known += named;
    if (!piece.name.empty() && !named) continue;
    todo.push_back(i);
    count.total += piece.bytes;
  }
  if (known < wanted.size()) return corrupt("the model's manifest lacks a tensor that the block range needs");
  for (size_t i : todo) {
    const MirrorPiece& piece = manifest_.pieces[i];
    bool here;
    {
      MutexLock lock(mutex_);
      here = present_[i];
    }
    if (!here && claimed_[i]) here = is_right_on_disk(piece);
    if (!here) TESSERA_RETURN_IF_ERROR(fetch(piece, readers, count.fetched));
    have(i);
    count.done += piece.bytes;
    if (progress) TESSERA_RETURN_IF_ERROR(progress(count));
  }
  return {};
}

Status Mirror::fetch(const MirrorPiece& piece, std::span<RangeReader* const> readers, uint64_t& fetched) {
  Status last = unavailable("nobody was asked for it");
  for (RangeReader* reader : readers) {
    last = fetch_from(piece, *reader, fetched);
    if (last.ok()) return last;
    last = last.with_context(reader->name());
  }
  return last.with_context(piece.name.empty() ? manifest_.files[piece.file].path : piece.name);
}

Status Mirror::fetch_from(const MirrorPiece& piece, RangeReader& reader, uint64_t& fetched) {
  Sha256 hash;
  uint64_t at = piece.offset, left = piece.bytes;
  const int descriptor = descriptors_[piece.file];
  TESSERA_RETURN_IF_ERROR(reader.read(
      manifest_.files[piece.file].path, piece.offset, piece.bytes,
      [&](std::span<const uint8_t> bytes) -> Status {
        if (bytes.size() > left) return corrupt("it sent more than was asked for");
        hash.update(bytes);
        left -= bytes.size();
        fetched += bytes.size();
        while (!bytes.empty()) {
          const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(at));
          if (written < 0) return io_error((folder_ / manifest_.files[piece.file].path).string(), errno);
          at += static_cast<uint64_t>(written);
          bytes = bytes.subspan(static_cast<size_t>(written));
        }
        return {};
      }));
  if (left > 0) return corrupt("it sent less than was asked for");
  if (hash.finish() != piece.sha256) return corrupt("its bytes do not have the sum that the manifest says");
  return {};
}

Result<std::string> Mirror::read(std::string_view path, uint64_t offset, uint64_t bytes) const {
  for (size_t i = 0; i < manifest_.pieces.size(); ++i) {
    const MirrorPiece& piece = manifest_.pieces[i];
    if (offset < piece.offset || offset - piece.offset > piece.bytes ||
        bytes > piece.bytes - (offset - piece.offset) || manifest_.files[piece.file].path != path)
      continue;
    {
      MutexLock lock(mutex_);
      if (!present_[i]) continue;
    }
    std::string out(bytes, '\0');
    const ssize_t got = ::pread(descriptors_[piece.file], out.data(), bytes, static_cast<off_t>(offset));
    if (got != static_cast<ssize_t>(bytes)) return io_error(std::string(path), got < 0 ? errno : EIO);
    return out;
  }
  return not_found("these bytes of " + std::string(path) + " are not here");
}

}  // namespace tessera::fetch
