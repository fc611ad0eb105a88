// models/catalogue.toml as text; CMake writes the definition.
#pragma once

#include <string_view>

namespace tessera::fetch {
extern const std::string_view kCatalogueToml;
}
