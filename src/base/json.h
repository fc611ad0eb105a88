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

// Checked before anything is built. The defaults hold the largest tokenizer.json and keep the work of a
// hostile text of a request's size well under a second.
struct JsonLimits {
  int max_depth = 128;                  // arrays and objects inside each other
  size_t max_values = size_t{1} << 22;  // of all kinds
  size_t max_keys = size_t{1} << 20;    // of all objects together: a key costs several times a number
};

// InvalidArgument with a short reason and position. Invalid UTF-8 in a string is an error. Of a key that
// comes twice in an object the last value counts. Takes time in proportion to the text, whatever is in it.
Result<Json> parse_json(std::string_view text, JsonLimits limits = {});
Result<OrderedJson> parse_ordered_json(std::string_view text, JsonLimits limits = {});
// One line; invalid UTF-8 becomes U+FFFD instead of an exception.
std::string dump_json(const Json& value);
std::string dump_json(const OrderedJson& value);

}  // namespace tessera
