// The names of the tensors that a block range reads, for whoever fetches a model in part.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/source.h"
#include "weights/plan.h"

namespace tessera::weights {

// Sorted. The source may be all header: no value is looked at. Errors as plan_range().
Result<std::vector<std::string>> needed_tensors(const Layout& layout, const checkpoint::Source& source,
                                                BlockRange range);

}  // namespace tessera::weights
