#include "checkpoint/source.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "checkpoint/gguf.h"
#include "checkpoint/gguf_config.h"
#include "checkpoint/safetensors.h"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxJsonBytes = 64 << 20;

class GgufSource final : public Source {
 public:
  GgufSource(std::shared_ptr<const GgufFile> file, Json config, Json generation_config)
      : file_(std::move(file)),
        config_(std::move(config)),
        generation_config_(std::move(generation_config)) {}

  const TensorInfo* find(std::string_view name) const override { return file_->find(name); }
  const std::vector<TensorInfo>& tensors() const override { return file_->tensors(); }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return generation_config_; }
  bool is_gguf() const override { return true; }
  const GgufFile* gguf() const override { return file_.get(); }
  const fs::path& path() const override { return file_->path(); }
  uint64_t file_bytes() const override { return file_->file_bytes(); }

 private:
  std::shared_ptr<const GgufFile> file_;
  Json config_;
  Json generation_config_;
};

class FolderSource final : public Source {
 public:
  FolderSource(fs::path path, std::vector<TensorInfo> tensors, uint64_t file_bytes, Json config,
               Json generation_config)
      : path_(std::move(path)),
        tensors_(std::move(tensors)),
        file_bytes_(file_bytes),
        config_(std::move(config)),
        generation_config_(std::move(generation_config)) {
    for (const TensorInfo& tensor : tensors_) by_name_.emplace(tensor.name, &tensor);
  }

  const TensorInfo* find(std::string_view name) const override {
    auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : it->second;
  }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const Json& config() const override { return config_; }
  const Json& generation_config() const override { return generation_config_; }
  bool is_gguf() const override { return false; }
  const GgufFile* gguf() const override { return nullptr; }
  const fs::path& path() const override { return path_; }
  uint64_t file_bytes() const override { return file_bytes_; }

 private:
  fs::path path_;
  std::vector<TensorInfo> tensors_;
  uint64_t file_bytes_;
  Json config_;
  Json generation_config_;
  std::unordered_map<std::string_view, const TensorInfo*> by_name_;
};

Result<Json> read_json_object(const fs::path& path) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_file(path, kMaxJsonBytes));
  auto json = parse_json(text);
  if (!json.ok()) return corrupt(path.string() + ": " + json.status().message());
  if (!json->is_object()) return corrupt(path.string() + " is not a JSON object");
  return json;
}

// A shard lies in the model's folder itself: anything else could make us open files outside.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

struct Weights {
  std::vector<TensorInfo> tensors;
  uint64_t file_bytes = 0;
};

Status add_file(const fs::path& path, Weights& weights, std::vector<TensorInfo>& found) {
  TESSERA_ASSIGN_OR_RETURN(found, read_safetensors(path));
  std::error_code error;
  weights.file_bytes += fs::file_size(path, error);
  if (error) return io_error("cannot stat " + path.string(), error.value());
  return {};
}

// Takes from each shard what the index assigns to it; a tensor that the index does not know is left out.
Result<Weights> read_shards(const fs::path& folder, const fs::path& index_path) {
  TESSERA_ASSIGN_OR_RETURN(Json index, read_json_object(index_path));
  auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) return corrupt(index_path.string() + " has no weight_map");
  std::map<std::string, size_t> expected;  // shard → tensors assigned to it
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !is_plain_file_name(file.get_ref<const std::string&>()))
      return corrupt(index_path.string() + ": the file of tensor " + tensor +
                     " is not a name in the model's folder");
    ++expected[file.get<std::string>()];
  }
  Weights weights;
  for (const auto& [file, count] : expected) {
    const fs::path path = folder / file;
    std::vector<TensorInfo> found;
    Status status = add_file(path, weights, found);
    if (status.code() == Code::kNotFound)
      return corrupt(index_path.string() + " names " + file + ", which is missing");
    TESSERA_RETURN_IF_ERROR(status);
    size_t taken = 0;
    for (TensorInfo& tensor : found) {
      auto assigned = map->find(tensor.name);
      if (assigned == map->end()) continue;
      if (*assigned != file)
        return corrupt("tensor " + tensor.name + " is in " + file + " and, by the index, in " +
                       assigned->get<std::string>());
      weights.tensors.push_back(std::move(tensor));
      ++taken;
    }
    if (taken != count)
      return corrupt(path.string() + " lacks " + std::to_string(count - taken) +
                     " tensors that the index assigns to it");
  }
  return weights;
}

// What one look into a folder finds: file names by kind, sorted.
struct Listing {
  std::vector<std::string> safetensors;
  std::vector<std::string> gguf;  // one name for each model: the first part of a split set
};

Result<Listing> list_folder(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const std::string extension = it->path().extension().string();
    if (extension == ".safetensors") listing.safetensors.push_back(name);
    if (extension != ".gguf") continue;
    const auto split = parse_split_name(name);
    if (!split || split->part == 1) listing.gguf.push_back(name);
  }
  if (error) return io_error("cannot list " + folder.string(), error.value());
  std::sort(listing.safetensors.begin(), listing.safetensors.end());
  std::sort(listing.gguf.begin(), listing.gguf.end());
  return listing;
}

Result<Weights> read_weights(const fs::path& folder, const std::vector<std::string>& files) {
  const fs::path index = folder / "model.safetensors.index.json";
  std::error_code error;
  if (fs::exists(index, error)) return read_shards(folder, index);
  std::string name = files.front();
  if (std::find(files.begin(), files.end(), "model.safetensors") != files.end()) {
    name = "model.safetensors";
  } else if (files.size() > 1) {
    return invalid_argument(
        folder.string() + " has " + std::to_string(files.size()) +
        " .safetensors files and no model.safetensors.index.json to say which belong together");
  }
  Weights weights;
  std::vector<TensorInfo> found;
  TESSERA_RETURN_IF_ERROR(add_file(folder / name, weights, found));
  weights.tensors = std::move(found);
  return weights;
}

Result<std::shared_ptr<const Source>> open_folder(const fs::path& folder,
                                                  const std::vector<std::string>& files) {
  TESSERA_ASSIGN_OR_RETURN(Json config, read_json_object(folder / "config.json"));
  Json generation_config = Json::object();
  auto generation = read_json_object(folder / "generation_config.json");
  if (generation.ok()) {
    generation_config = std::move(*generation);
  } else if (generation.status().code() != Code::kNotFound) {
    return generation.status();
  }
  TESSERA_ASSIGN_OR_RETURN(Weights weights, read_weights(folder, files));
  if (weights.tensors.empty()) return corrupt(folder.string() + " holds no tensors");
  return std::shared_ptr<const Source>(std::make_shared<FolderSource>(folder, std::move(weights.tensors),
                                                                      weights.file_bytes, std::move(config),
                                                                      std::move(generation_config)));
}

Result<std::shared_ptr<const Source>> open_gguf(const fs::path& path) {
  TESSERA_ASSIGN_OR_RETURN(auto file, GgufFile::open(path));
  auto config = gguf_config(*file);
  if (!config.ok()) return config.status().with_context(path.string());
  Json generation_config = gguf_generation_config(*file);
  return std::shared_ptr<const Source>(
      std::make_shared<GgufSource>(std::move(file), std::move(*config), std::move(generation_config)));
}

}  // namespace

Result<std::shared_ptr<const Source>> open_source(const fs::path& file_or_folder) {
  std::error_code error;
  const fs::file_status status = fs::status(file_or_folder, error);
  if (status.type() == fs::file_type::not_found)
    return not_found(file_or_folder.string() + " does not exist");
  if (error) return io_error("cannot open " + file_or_folder.string(), error.value());
  if (!fs::is_directory(status)) return open_gguf(file_or_folder);
  TESSERA_ASSIGN_OR_RETURN(Listing listing, list_folder(file_or_folder));
  const bool has_config = fs::exists(file_or_folder / "config.json", error);
  if (has_config && !listing.safetensors.empty()) return open_folder(file_or_folder, listing.safetensors);
  if (listing.gguf.size() == 1) return open_gguf(file_or_folder / listing.gguf.front());
  if (listing.gguf.size() > 1)
    return invalid_argument(file_or_folder.string() + " holds " + std::to_string(listing.gguf.size()) +
                            " GGUF models; name the file");
  if (has_config) return not_found(file_or_folder.string() + " has a config.json, but no .safetensors file");
  return not_found(file_or_folder.string() +
                   " is no model: neither config.json with .safetensors nor a .gguf");
}

}  // namespace tessera::checkpoint
