#include "gateway/model_files.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "obs/log.h"

namespace tessera::gateway {
namespace {

namespace fs = std::filesystem;

// Names the state of the files that sums were taken of.
std::string state_of(const fetch::ModelFolder& folder) {
  Sha256 hash;
  std::error_code error;
  for (const auto& [name, file] : folder.weights) {
    const fs::path& path = file->path();
    const auto time = fs::last_write_time(path, error).time_since_epoch().count();
    hash.update(as_bytes(fs::absolute(path).string() + '\0' + std::to_string(fs::file_size(path, error)) +
                         '\0' + std::to_string(time) + '\n'));
  }
  return to_hex(hash.finish()).substr(0, 32);
}

}  // namespace

void ModelFiles::add(const std::string& model, std::shared_ptr<const checkpoint::Source> source,
                     std::string origin) {
  auto entry = std::make_shared<Entry>();
  entry->folder = fetch::model_folder(*source);
  entry->source = std::move(source);
  entry->origin = std::move(origin);
  MutexLock lock(mutex_);
  entries_[model] = std::move(entry);
}

void ModelFiles::remove(const std::string& model) {
  MutexLock lock(mutex_);
  entries_.erase(model);
}

std::shared_ptr<ModelFiles::Entry> ModelFiles::find(const std::string& model) {
  MutexLock lock(mutex_);
  auto found = entries_.find(model);
  return found == entries_.end() ? nullptr : found->second;
}

Result<std::string> ModelFiles::manifest(const std::string& model) {
  const std::shared_ptr<Entry> entry = find(model);
  if (entry == nullptr) return not_found("this gateway does not serve " + model);
  MutexLock lock(entry->mutex);
  if (!entry->manifest.empty()) return entry->manifest;
  const fs::path cached = cache_ / (state_of(entry->folder) + ".json");
  if (auto text = read_file(cached); text.ok()) {
    if (auto json = parse_json(*text); json.ok() && fetch::MirrorManifest::from_json(*json).ok()) {
      (*json)["model"] = model;
      return entry->manifest = dump_json(*json);
    }
  }
  obs::log_info("cluster", "taking the sums of a model's tensors", {{"model", model}});
  TESSERA_ASSIGN_OR_RETURN(fetch::MirrorManifest manifest,
                           fetch::make_mirror_manifest(*entry->source, model, entry->origin));
  entry->manifest = dump_json(manifest.to_json());
  std::error_code error;
  fs::create_directories(cache_, error);
  if (Status status = write_file_atomic(cached, entry->manifest); !status.ok())
    obs::log_warn("cluster", "a manifest could not be kept", {{"error", status.message()}});
  return entry->manifest;
}

Result<std::string> ModelFiles::read(const std::string& model, const std::string& file, uint64_t offset,
                                     uint64_t length) {
  const std::shared_ptr<Entry> entry = find(model);
  if (entry == nullptr) return not_found("this gateway does not serve " + model);
  if (auto found = entry->folder.weights.find(file); found != entry->folder.weights.end()) {
    const std::span<const uint8_t> bytes = found->second->bytes();
    if (offset > bytes.size() || length > bytes.size() - offset)
      return invalid_argument(file + " ends at " + std::to_string(bytes.size()));
    return std::string(reinterpret_cast<const char*>(bytes.data()) + offset, length);
  }
  if (!fetch::is_worker_file(file)) return not_found("the model has no file " + file);
  TESSERA_ASSIGN_OR_RETURN(std::string contents, read_file(entry->folder.root / file));
  if (offset > contents.size() || length > contents.size() - offset)
    return invalid_argument(file + " ends at " + std::to_string(contents.size()));
  return contents.substr(offset, length);
}

}  // namespace tessera::gateway
