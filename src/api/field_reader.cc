#include "api/field_reader.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

namespace tessera::api {
namespace {

std::string quoted(const std::string& name) {
  return "'" + name + "'";
}

std::string plain(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

std::optional<int64_t> json_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it a double skips integers
    if (std::fabs(number) <= kExact && std::trunc(number) == number) return static_cast<int64_t>(number);
  }
  return std::nullopt;
}

const Json* FieldReader::find(const char* name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool FieldReader::boolean(const char* name, bool fallback) {
  const Json* value = find(name);
  if (!value) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  fail(name, quoted(name) + " must be true or false.");
  return fallback;
}

int64_t FieldReader::integer(const char* name, int64_t fallback, int64_t low, int64_t high) {
  const Json* value = find(name);
  if (!value) return fallback;
  if (!value->is_number()) {
    fail(name, quoted(name) + " must be an integer.");
    return fallback;
  }
  const std::optional<int64_t> number = json_integer(*value);
  if (number && *number >= low && *number <= high) return *number;
  fail(name, quoted(name) + " must be an integer from " + std::to_string(low) + " to " +
                 std::to_string(high) + ".");
  return fallback;
}

double FieldReader::number(const char* name, double fallback, double low, double high) {
  const Json* value = find(name);
  if (!value) return fallback;
  if (!value->is_number()) {
    fail(name, quoted(name) + " must be a number.");
    return fallback;
  }
  const double number = value->get<double>();
  if (number >= low && number <= high) return number;
  fail(name, quoted(name) + " must be between " + plain(low) + " and " + plain(high) + ".");
  return fallback;
}

std::string FieldReader::text(const char* name, std::string fallback) {
  const Json* value = find(name);
  if (!value) return fallback;
  if (value->is_string()) return value->get<std::string>();
  fail(name, quoted(name) + " must be a string.");
  return fallback;
}

std::vector<std::string> FieldReader::texts(const char* name, std::vector<std::string> fallback) {
  const Json* value = find(name);
  if (!value) return fallback;
  std::vector<std::string> list;
  for (const Json& item : value->is_array() ? *value : Json::array({nullptr})) {
    if (!item.is_string()) {
      fail(name, quoted(name) + " must be a list of strings.");
      return fallback;
    }
    list.push_back(item.get<std::string>());
  }
  return list;
}

std::vector<TokenId> FieldReader::token_ids(const Json& list, const std::string& what, int vocab_size) {
  if (!list.is_array()) {
    fail(what, quoted(what) + " must be a list of token ids.");
    return {};
  }
  std::vector<TokenId> ids;
  ids.reserve(list.size());
  for (const Json& item : list) {
    const std::optional<int64_t> id = json_integer(item);
    if (!id || *id < 0 || *id >= vocab_size) {
      fail(what, quoted(what) + " must hold token ids from 0 to " + std::to_string(vocab_size - 1) + ".");
      return {};
    }
    ids.push_back(static_cast<TokenId>(*id));
  }
  return ids;
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::fail(const std::string& name, std::string message) {
  fail(invalid_request(std::move(message), name));
}

}  // namespace tessera::api
