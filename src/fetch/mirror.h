// A model held in part: the files of the origin with holes where tensors were not needed, so that everything
// that reads a model reads this one, too. A worker keeps one for each model that it hosts ranges of. Every
// byte comes with a SHA-256 that the gateway publishes, whoever sends it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "base/mutex.h"
#include "base/sha256.h"
#include "checkpoint/source.h"

namespace tessera::fetch {

// Bytes that are fetched, checked and kept as a whole.
struct MirrorPiece {
  std::string name;  // the tensor; empty: a header or a small file that every reader needs
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t bytes = 0;
  Digest sha256{};
};

struct MirrorManifest {
  struct File {
    std::string path;  // relative, without "..", '/' between folders
    uint64_t bytes = 0;
  };
  std::string model;
  std::string origin;  // ORG/NAME@REVISION on a hub, else empty
  std::string main;    // what checkpoint::open_source() is given, relative; "" = the folder
  std::vector<File> files;
  std::vector<MirrorPiece> pieces;

  // Names the content: equal for equal bytes under equal paths.
  Digest id() const;
  Json to_json() const;
  // A peer's: paths, ranges and counts are checked.
  static Result<MirrorManifest> from_json(const Json& json);
};

// A file of the model's folder, by its plain name, that workers need beside the tensors: config.json and its
// like, not the tokenizer.
bool is_worker_file(std::string_view name);

// A source as its folder's files, by their paths within it.
struct ModelFolder {
  std::filesystem::path root;
  std::string main;                                                               // MirrorManifest::main
  std::map<std::string, std::shared_ptr<const MappedFile>, std::less<>> weights;  // files that hold tensors
};
ModelFolder model_folder(const checkpoint::Source& source);

// Reads every byte of the weights once.
Result<MirrorManifest> make_mirror_manifest(const checkpoint::Source& source, std::string model,
                                            std::string origin);

// Where pieces come from. One thread at a time.
class RangeReader {
 public:
  virtual ~RangeReader() = default;
  virtual const std::string& name() const = 0;  // for messages and counts
  // Calls `sink` with the bytes in order; whatever it was given may be wrong until the piece was checked.
  virtual Status read(const std::string& path, uint64_t offset, uint64_t bytes,
                      const std::function<Status(std::span<const uint8_t>)>& sink) = 0;
};

// Another copy on this machine's disk.
std::unique_ptr<RangeReader> make_disk_reader(std::filesystem::path folder);

struct MirrorProgress {
  uint64_t done = 0;  // bytes, those that were here already included
  uint64_t total = 0;
  uint64_t fetched = 0;
};

class Mirror {
 public:
  // The mirror of that content under `root`; what an earlier run fetched is still there, and is checked again
  // when it is next asked for.
  static Result<std::unique_ptr<Mirror>> open(const std::filesystem::path& root, MirrorManifest manifest);
  ~Mirror();

  const MirrorManifest& manifest() const { return manifest_; }
  std::filesystem::path main_path() const;  // for checkpoint::open_source(), after ensure_headers()

  // Fetches what is missing of the headers and of these tensors, piece by piece, from the first reader that
  // has it right. Returns what kept the last of them from it; pieces that came stay. An error of `progress`
  // ends it. One caller at a time.
  Status ensure(std::span<const std::string> tensors, std::span<RangeReader* const> readers,
                const std::function<Status(const MirrorProgress&)>& progress);
  Status ensure_headers(std::span<RangeReader* const> readers) { return ensure({}, readers, nullptr); }

  // For peers: bytes of a file that lie within pieces that are here and right. NotFound otherwise.
  // Thread-safe.
  Result<std::string> read(std::string_view path, uint64_t offset, uint64_t bytes) const;

 private:
  Mirror(std::filesystem::path folder, MirrorManifest manifest);
  Status open_files();
  Status fetch(const MirrorPiece& piece, std::span<RangeReader* const> readers, uint64_t& fetched);
  Status fetch_from(const MirrorPiece& piece, RangeReader& reader, uint64_t& fetched);
  bool is_right_on_disk(const MirrorPiece& piece) const;
  void have(size_t piece);

  const std::filesystem::path folder_;
  const MirrorManifest manifest_;
  std::vector<int> descriptors_;  // one a file
  std::vector<bool> claimed_;     // a former run says it is here; not checked yet
  mutable Mutex mutex_;
  std::vector<bool> present_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::fetch
