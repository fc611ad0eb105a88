// ModelFiles: what the gateway publishes of the models that it serves: a manifest of sums, and the bytes.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "checkpoint/source.h"
#include "fetch/mirror.h"

namespace tessera::gateway {

// Thread-safe. Sums are taken once for each state of the files (path, size, time) and kept under `cache`.
class ModelFiles {
 public:
  explicit ModelFiles(std::filesystem::path cache) : cache_(std::move(cache)) {}

  void add(const std::string& model, std::shared_ptr<const checkpoint::Source> source, std::string origin);
  void remove(const std::string& model);
  // MirrorManifest as JSON. The first call for a model reads it whole; others wait for that.
  Result<std::string> manifest(const std::string& model);
  // Bytes of a file that the manifest lists.
  Result<std::string> read(const std::string& model, const std::string& file, uint64_t offset,
                           uint64_t length);

 private:
  struct Entry {
    std::shared_ptr<const checkpoint::Source> source;
    fetch::ModelFolder folder;
    std::string origin;
    Mutex mutex;  // held while the sums are taken
    std::string manifest TESSERA_GUARDED_BY(mutex);
  };
  std::shared_ptr<Entry> find(const std::string& model);

  const std::filesystem::path cache_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Entry>> entries_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::gateway
