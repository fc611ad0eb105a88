// Pieces of a model straight from the hub, by byte range.
#pragma once

#include <memory>

#include "fetch/hub.h"
#include "fetch/mirror.h"

namespace tessera::fetch {

// `http` must outlive the reader. A hub that ignores Range is read from the file's beginning.
std::unique_ptr<RangeReader> make_hub_reader(HubAccess access, HubName model);

}  // namespace tessera::fetch
