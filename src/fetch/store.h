// The models that were pulled, as folders under TESSERA_HOME/models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tessera::fetch {

// One file of a pulled model and the sum that it was checked against.
struct StoredFile {
  std::string path;  // below the model's folder
  uint64_t bytes = 0;
  std::string sum;  // sha256 (64 hex digits) or git blob id (40)
};

struct StoredModel {
  std::string name;            // as pulled
  std::filesystem::path path;  // what to open: a .gguf, or the folder
  std::string format;          // "gguf" or "safetensors"
  std::string origin;          // for people: which source it came from
  std::vector<StoredFile> files;
  uint64_t bytes() const;
};

// Layout: ROOT/<encoded name>/ holds a complete model and its record; ROOT/.partial/<encoded name>/ one that
// is being pulled; ROOT/.locks/<encoded name> is locked meanwhile. A model appears and disappears by one
// rename, so a reader never sees half of it. Holds no state: several processes may use the same root.
struct ModelStore {
  std::filesystem::path root;

  // Sorted by name; folders without a readable record are left out.
  Result<std::vector<StoredModel>> list() const;
  // NotFound when it was not pulled, or its files are gone.
  Result<StoredModel> find(std::string_view name) const;
  // The model and what a broken pull of it left. NotFound when there is neither.
  Status remove(std::string_view name) const;

  std::filesystem::path folder(std::string_view name) const;
  std::filesystem::path partial_folder(std::string_view name) const;
  // Writes the record and moves the partial folder into place, instead of an older pull of the same name.
  // `model.path` must lie in the partial folder. The caller holds the lock.
  Result<StoredModel> publish(StoredModel model) const;
};

// Held by whoever changes the model `name`; ends with the process at the latest. ResourceExhausted when
// somebody else holds it.
class ModelLock {
 public:
  static Result<std::unique_ptr<ModelLock>> acquire(const ModelStore& store, std::string_view name);
  ~ModelLock();
  ModelLock(const ModelLock&) = delete;
  ModelLock& operator=(const ModelLock&) = delete;

 private:
  explicit ModelLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace tessera::fetch
