// The Hugging Face hub's listing, and which of a model's files Tessera wants.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fetch/http.h"
#include "fetch/model_name.h"
#include "fetch/retry.h"

namespace tessera::fetch {

struct RemoteFile {
  std::string path;               // safe (is_safe_path)
  std::optional<uint64_t> bytes;  // nothing: the listing does not say
  std::string sum;  // sha256 (64 hex) of an LFS file, git blob id (40 hex) of another; empty: not said
};

struct HubAccess {
  HttpGetter& http;
  std::string endpoint;  // "https://huggingface.co", no slash at the end
  std::string token;     // empty: none
  RetryPolicy retry;
};

// All files of a revision. A path that would leave the model's folder makes the whole listing Corrupt.
Result<std::vector<RemoteFile>> list_hub_files(const HubAccess& hub, const HubName& name);

// Where a file's bytes are.
std::string hub_file_url(const HubAccess& hub, const HubName& name, const std::string& path);

// The sum that the hub states when asked for the file itself (X-Linked-ETag, else ETag): for listings without
// sums. Corrupt when it states none.
Result<std::string> probe_hub_sum(const HubAccess& hub, const HubName& name, const std::string& path);

// What to download: name.file (with the other parts, if it is one of a split set); else configuration,
// tokenizer and safetensors; else the repository's only GGUF model.
Result<std::vector<RemoteFile>> choose_files(const std::vector<RemoteFile>& files, const HubName& name);

}  // namespace tessera::fetch
