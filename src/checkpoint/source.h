// A model as its files describe it: named tensors and a configuration, whatever the format.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/tensor_info.h"

namespace tessera::checkpoint {

class GgufFile;

// Immutable, thread-safe.
class Source {
 public:
  virtual ~Source() = default;
  virtual const TensorInfo* find(std::string_view name) const = 0;  // null when absent
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  // Hugging Face: config.json as it is. GGUF: an object with the same keys made from the metadata
  // (gguf_config.h).
  virtual const Json& config() const = 0;
  virtual const Json& generation_config() const = 0;  // {} when absent
  virtual bool is_gguf() const = 0;
  virtual const GgufFile* gguf() const = 0;  // metadata of a GGUF model, else null; lives as long as this
  virtual const std::filesystem::path& path() const = 0;
  virtual uint64_t file_bytes() const = 0;  // of the files that hold tensors
};

// A .gguf file; a folder with config.json and model.safetensors, or the shards that
// model.safetensors.index.json lists, or one other *.safetensors; a folder with exactly one GGUF model.
Result<std::shared_ptr<const Source>> open_source(const std::filesystem::path& file_or_folder);

}  // namespace tessera::checkpoint
