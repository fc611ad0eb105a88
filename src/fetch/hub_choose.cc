#include <algorithm>
#include <cctype>

#include "checkpoint/gguf.h"
#include "fetch/hub.h"

namespace tessera::fetch {
namespace {

bool is_one_of_a_numbered_set(std::string_view name) {  // model-00001-of-00003.safetensors
  return name.starts_with("model-") && name.find("-of-") != std::string_view::npos &&
         name.ends_with(".safetensors");
}

bool is_side_file(std::string_view name) {
  return name == "config.json" || name == "generation_config.json" || name == "special_tokens_map.json" ||
         name.starts_with("tokenizer") || name.starts_with("chat_template.");
}

std::vector<RemoteFile> choose_safetensors(const std::vector<RemoteFile>& top) {
  // Where the usual names are there, other .safetensors are copies in another layout (consolidated, fp16, …).
  const bool usual = std::any_of(top.begin(), top.end(), [](const RemoteFile& file) {
    return file.path == "model.safetensors" || is_one_of_a_numbered_set(file.path);
  });
  std::vector<RemoteFile> chosen;
  for (const RemoteFile& file : top) {
    const bool weights = file.path.ends_with(".safetensors") &&
                         (!usual || file.path == "model.safetensors" || is_one_of_a_numbered_set(file.path));
    if (weights || file.path.ends_with(".safetensors.index.json")) chosen.push_back(file);
  }
  return chosen;
}

std::string gguf_names(const std::vector<RemoteFile>& files) {
  std::string names;
  for (const RemoteFile& file : files) {
    if (file.path.ends_with(".gguf")) names += (names.empty() ? "" : ", ") + file.path;
  }
  return names;
}

// `path` and, if it is a part of a split set, the other parts.
Result<std::vector<RemoteFile>> with_its_parts(const std::vector<RemoteFile>& files,
                                               const std::string& path) {
  const auto wanted = checkpoint::parse_split_name(path);
  std::vector<RemoteFile> chosen;
  for (const RemoteFile& file : files) {
    const auto split = checkpoint::parse_split_name(file.path);
    const bool part = wanted && split && split->prefix == wanted->prefix && split->parts == wanted->parts;
    if (file.path == path || part) chosen.push_back(file);
  }
  if (chosen.size() < (wanted ? wanted->parts : 1)) {
    const std::string names = gguf_names(files);
    return not_found("the hub has no file " + path + " with all its parts" +
                     (names.empty() ? "" : "; it has " + names));
  }
  return chosen;
}

}  // namespace

Result<std::vector<RemoteFile>> choose_files(const std::vector<RemoteFile>& files, const HubName& name) {
  if (!name.file.empty()) {
    if (!name.file.ends_with(".gguf"))
      return invalid_argument(name.file + " is no model by itself: name a .gguf file, or pull " +
                              name.repository + " whole");
    return with_its_parts(files, name.file);
  }
  std::vector<RemoteFile> top;
  for (const RemoteFile& file : files) {
    if (file.path.find('/') == std::string::npos) top.push_back(file);
  }
  std::vector<RemoteFile> chosen = choose_safetensors(top);
  const bool has_weights = std::any_of(chosen.begin(), chosen.end(), [](const RemoteFile& file) {
    return file.path.ends_with(".safetensors");
  });
  if (has_weights) {
    for (const RemoteFile& file : top) {
      if (is_side_file(file.path)) chosen.push_back(file);
    }
    return chosen;
  }
  std::vector<std::string> models;
  for (const RemoteFile& file : files) {
    const auto split = checkpoint::parse_split_name(file.path);
    if (file.path.ends_with(".gguf") && (!split || split->part == 1)) models.push_back(file.path);
  }
  if (models.size() == 1) return with_its_parts(files, models.front());
  if (models.empty()) return unsupported(name.repository + " has neither .safetensors nor .gguf files");
  return invalid_argument(name.repository + " has several GGUF models; name one as " + name.repository +
                          ":FILE: " + gguf_names(files));
}

}  // namespace tessera::fetch
