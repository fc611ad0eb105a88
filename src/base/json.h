// Parsing JSON from users, peers and model files: bounded depth and size, errors as Status, never an
// exception.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/status.h"

namespace tessera {

using Json = nlohmann::json;
using OrderedJson =
    nlohmann::ordered_json;  // keeps the order of keys: chat templates and tool schemas need it

struct JsonLimits {
  int max_depth = 128;  // arrays and objects inside each other
};

// InvalidArgument with a short reason and position. Invalid UTF-8 in a string is an error.
Result<Json> parse_json(std::string_view text, JsonLimits limits = {});
Result<OrderedJson> parse_ordered_json(std::string_view text, JsonLimits limits = {});
// One line; invalid UTF-8 becomes U+FFFD instead of an exception.
std::string dump_json(const Json& value);
std::string dump_json(const OrderedJson& value);

}  // namespace tessera
