#include "base/json.h"

#include <nlohmann/json.hpp>

namespace tessera {
namespace {

// Depth is checked before building, so that neither parser, destructor nor dump recurses far.
Status check_depth(std::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth)
        return invalid_argument("JSON is nested deeper than " + std::to_string(max_depth));
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return {};
}

template <typename J>
Result<J> parse(std::string_view text, JsonLimits limits) {
  TESSERA_RETURN_IF_ERROR(check_depth(text, limits.max_depth));
  try {
    return J::parse(text);
  } catch (const std::exception& error) {
    std::string reason = error.what();
    if (auto at = reason.find("parse error"); at != std::string::npos) reason = reason.substr(at);
    return invalid_argument("not valid JSON: " + reason);
  }
}

}  // namespace

Result<Json> parse_json(std::string_view text, JsonLimits limits) {
  return parse<Json>(text, limits);
}
Result<OrderedJson> parse_ordered_json(std::string_view text, JsonLimits limits) {
  return parse<OrderedJson>(text, limits);
}
std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string dump_json(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace tessera
