#include "base/json.h"

#include <nlohmann/json.hpp>
#include <unordered_map>
#include <vector>

namespace tessera {
namespace {

// Depth is checked before building, so that neither parser, destructor nor dump recurses far; the counts, so
// that a text of a few megabytes does not become objects of gigabytes.
Status check_shape(std::string_view text, const JsonLimits& limits) {
  int depth = 0;
  size_t values = 1;  // at most: an empty container counts one too many
  size_t keys = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++values;
      if (++depth > limits.max_depth)
        return invalid_argument("JSON is nested deeper than " + std::to_string(limits.max_depth));
    } else if (c == ']' || c == '}') {
      --depth;
    } else if (c == ',') {
      ++values;
    } else if (c == ':') {
      ++keys;
    }
  }
  if (values > limits.max_values)
    return invalid_argument("JSON holds more than " + std::to_string(limits.max_values) + " values");
  if (keys > limits.max_keys)
    return invalid_argument("JSON holds more than " + std::to_string(limits.max_keys) + " keys");
  return {};
}

Status not_json(std::string reason) {
  if (auto at = reason.find("parse error"); at != std::string::npos) reason = reason.substr(at);
  return invalid_argument("not valid JSON: " + reason);
}

// Builds an OrderedJson. The library's own builder walks all keys of an object for each new one; this one
// looks them up.
class OrderedBuilder final : public nlohmann::json_sax<OrderedJson> {
 public:
  OrderedJson take() { return std::move(root_); }
  const std::string& error() const { return error_; }

  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // no JSON text holds one
  bool start_object(size_t) override { return open(OrderedJson::object()); }
  bool start_array(size_t) override { return open(OrderedJson::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Level& level = levels_.back();
    auto& object = level.container->get_ref<OrderedJson::object_t&>();
    const auto [place, is_new] = level.index.try_emplace(name, object.size());
    if (is_new) object.emplace_back(std::move(name), nullptr);
    level.slot = &(object.begin() + static_cast<std::ptrdiff_t>(place->second))->second;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    error_ = error.what();
    return false;
  }

 private:
  struct Level {
    OrderedJson* container;
    OrderedJson* slot = nullptr;                    // object: where the value of the last key goes
    std::unordered_map<std::string, size_t> index;  // object: key to position
  };

  OrderedJson* place(OrderedJson value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Level& level = levels_.back();
    if (level.container->is_array()) {
      level.container->push_back(std::move(value));
      return &level.container->back();
    }
    *level.slot = std::move(value);
    return level.slot;
  }
  template <typename T>
  bool scalar(T&& value) {
    place(OrderedJson(std::forward<T>(value)));
    return true;
  }
  bool open(OrderedJson container) {
    OrderedJson* placed =
        place(std::move(container));  // stays there: its parent grows only after it is closed
    levels_.push_back({placed, nullptr, {}});
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  OrderedJson root_;
  std::vector<Level> levels_;
  std::string error_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, JsonLimits limits) {
  TESSERA_RETURN_IF_ERROR(check_shape(text, limits));
  try {
    return Json::parse(text);
  } catch (const std::exception& error) {
    return not_json(error.what());
  }
}

Result<OrderedJson> parse_ordered_json(std::string_view text, JsonLimits limits) {
  TESSERA_RETURN_IF_ERROR(check_shape(text, limits));
  OrderedBuilder builder;
  if (!OrderedJson::sax_parse(text, &builder)) return not_json(builder.error());
  return builder.take();
}

std::string dump_json(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string dump_json(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace tessera
