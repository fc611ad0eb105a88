#include "checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/sha256.h"

namespace tessera::checkpoint {

Result<Json> tensor_manifest(const Source& source) {
  std::vector<const TensorInfo*> sorted;
  sorted.reserve(source.tensors().size());
  for (const TensorInfo& tensor : source.tensors()) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->name < b->name; });
  Json manifest = Json::array();
  for (const TensorInfo* tensor : sorted) {
    if (tensor->file == nullptr) return invalid_argument("tensor " + tensor->name + " has no file");
    const Digest digest = sha256(tensor->data());
    tensor->file->dont_need(tensor->offset, tensor->bytes);
    manifest.push_back({{"name", tensor->name},
                        {"dtype", std::string(dtype_info(tensor->dtype).name)},
                        {"shape", tensor->shape},
                        {"bytes", tensor->bytes},
                        {"sha256", to_hex(digest)}});
  }
  return manifest;
}

}  // namespace tessera::checkpoint
