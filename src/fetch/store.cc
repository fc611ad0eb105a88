#include "fetch/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "fetch/model_name.h"
#include "net/url.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRecordName = ".tessera-model.json";
constexpr uint64_t kMaxRecordBytes = 16 << 20;

std::string encoded(std::string_view name) {
  return net::percent_encode(name);
}

Status make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return io_error("cannot create " + folder.string(), error.value());
  return {};
}

Json to_record(const StoredModel& model, const fs::path& relative) {
  Json files = Json::array();
  for (const StoredFile& file : model.files)
    files.push_back({{"path", file.path}, {"bytes", file.bytes}, {"sum", file.sum}});
  return {{"version", 1},           {"name", model.name},     {"path", relative.string()},
          {"format", model.format}, {"origin", model.origin}, {"files", std::move(files)}};
}

Result<StoredModel> read_record(const fs::path& folder) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(folder / kRecordName, kMaxRecordBytes));
  TESSERA_ASSIGN_OR_RETURN(const Json record, parse_json(text));
  StoredModel model;
  try {
    model.name = record.at("name").get<std::string>();
    model.format = record.at("format").get<std::string>();
    model.origin = record.at("origin").get<std::string>();
    const auto path = record.at("path").get<std::string>();
    if (!path.empty() && !is_safe_path(path))
      return corrupt(folder.string() + ": its record names another folder");
    model.path = path.empty() ? folder : folder / path;
    for (const Json& file : record.at("files"))
      model.files.push_back({file.at("path").get<std::string>(), file.at("bytes").get<uint64_t>(),
                             file.at("sum").get<std::string>()});
  } catch (const std::exception& error) {
    return corrupt((folder / kRecordName).string() + ": " + error.what());
  }
  return model;
}

}  // namespace

uint64_t StoredModel::bytes() const {
  uint64_t total = 0;
  for (const StoredFile& file : files) total += file.bytes;
  return total;
}

fs::path ModelStore::folder(std::string_view name) const {
  return root / encoded(name);
}
fs::path ModelStore::partial_folder(std::string_view name) const {
  return root / ".partial" / encoded(name);
}

Result<std::vector<StoredModel>> ModelStore::list() const {
  std::vector<StoredModel> models;
  std::error_code error;
  if (!fs::exists(root, error)) {
    if (error) return io_error("cannot list " + root.string(), error.value());
    return models;
  }
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().front() == '.') continue;
    auto model = read_record(it->path());
    if (model.ok()) models.push_back(std::move(*model));
  }
  if (error) return io_error("cannot list " + root.string(), error.value());
  std::sort(models.begin(), models.end(),
            [](const StoredModel& a, const StoredModel& b) { return a.name < b.name; });
  return models;
}

Result<StoredModel> ModelStore::find(std::string_view name) const {
  auto model = read_record(folder(name));
  if (!model.ok() && model.status().code() != Code::kNotFound) return model.status();
  std::error_code error;
  if (!model.ok() || !fs::exists(model->path, error))
    return not_found("model '" + std::string(name) + "' is not in " + root.string());
  return model;
}

Status ModelStore::remove(std::string_view name) const {
  TESSERA_ASSIGN_OR_RETURN(auto lock, ModelLock::acquire(*this, name));
  std::error_code error;
  const fs::path whole = folder(name);
  const fs::path partial = partial_folder(name);
  const bool had_whole = fs::exists(whole, error);
  if (!had_whole && !fs::exists(partial, error))
    return not_found("model '" + std::string(name) + "' is not in " + root.string());
  fs::remove_all(partial, error);
  if (!error && had_whole) {
    TESSERA_RETURN_IF_ERROR(make_folder(partial.parent_path()));
    fs::rename(whole, partial, error);
    if (!error) fs::remove_all(partial, error);
  }
  if (error) return io_error("cannot remove " + whole.string(), error.value());
  return {};
}

Result<StoredModel> ModelStore::publish(StoredModel model) const {
  const fs::path partial = partial_folder(model.name);
  const fs::path whole = folder(model.name);
  const fs::path relative = model.path == partial ? fs::path() : model.path.lexically_relative(partial);
  TESSERA_RETURN_IF_ERROR(write_file_atomic(partial / kRecordName, dump_json(to_record(model, relative))));
  fs::path old = partial;
  old += ".old";
  std::error_code error;
  fs::remove_all(old, error);
  if (!error && fs::exists(whole, error)) fs::rename(whole, old, error);
  if (!error) fs::rename(partial, whole, error);
  if (error) return io_error("cannot move the model to " + whole.string(), error.value());
  fs::remove_all(old, error);
  model.path = relative.empty() ? whole : whole / relative;
  return model;
}

Result<std::unique_ptr<ModelLock>> ModelLock::acquire(const ModelStore& store, std::string_view name) {
  const fs::path folder = store.root / ".locks";
  TESSERA_RETURN_IF_ERROR(make_folder(folder));
  const fs::path path = folder / encoded(name);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return io_error("cannot open " + path.string(), errno);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return std::unique_ptr<ModelLock>(new ModelLock(fd));
  const int error = errno;
  ::close(fd);
  if (error == EWOULDBLOCK)
    return resource_exhausted("model '" + std::string(name) +
                              "' is being pulled or removed by another process");
  return io_error("cannot lock " + path.string(), error);
}

ModelLock::~ModelLock() {
  ::close(fd_);
}

}  // namespace tessera::fetch
