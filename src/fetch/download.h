// One file over HTTP: resumed where it broke off, checked before it gets its name.
#pragma once

#include <filesystem>

#include "fetch/hub.h"

namespace tessera::fetch {

// Told about what arrives; called from the thread that pulls.
class Progress {
 public:
  virtual ~Progress() = default;
  // total_bytes is 0 while unknown.
  virtual void on_file(const std::string& name, uint64_t total_bytes, uint64_t done_bytes) = 0;
};

// True when `path` has these bytes; `sum` as in RemoteFile. Reads the whole file.
Result<bool> file_matches(const std::filesystem::path& path, const std::string& sum);

// Brings `file` (its sum must be known) from `url` to folder/file.path. The bytes grow in a .part file beside
// it, named after the sum, which a later call goes on with. A file that is wrong in the end is removed:
// Corrupt. `progress` may be null.
Status download_file(const HubAccess& hub, const std::string& url, const RemoteFile& file,
                     const std::filesystem::path& folder, Progress* progress);

}  // namespace tessera::fetch
