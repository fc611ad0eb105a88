// The identity of a model's weights: one SHA-256 for each tensor.
#pragma once

#include "checkpoint/source.h"

namespace tessera::checkpoint {

// A list, sorted by name, of {"name","dtype","shape","bytes","sha256"}. Reads every byte of the weights once,
// and gives the pages back as it goes.
Result<Json> tensor_manifest(const Source& source);

}  // namespace tessera::checkpoint
