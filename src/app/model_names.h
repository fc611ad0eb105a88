// From what a person calls a model to where it lies.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"

namespace tessera::app {

// A path, or (in a build with the serving half) a pulled hub or short name; NotFound says how to get it.
Result<std::filesystem::path> find_model(const std::string& name);

}  // namespace tessera::app
