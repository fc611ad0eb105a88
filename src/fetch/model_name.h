// Names of models on the hub, and paths of files inside a model.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera::fetch {

// ORG/NAME[@REVISION][:FILE]
struct HubName {
  std::string repository;         // ORG/NAME
  std::string revision = "main";  // branch, tag or commit; may hold slashes (refs/pr/1)
  std::string file;               // empty: the whole model
};
Result<HubName> parse_hub_name(std::string_view name);

// A relative path with '/' between plain parts: none empty, "." or "..", none that begins with a dot, no
// backslash, no control character. Joined to a folder, it stays inside.
bool is_safe_path(std::string_view path);

}  // namespace tessera::fetch
