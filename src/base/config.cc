#include "base/config.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace tessera {
namespace {

struct Unit {
  std::string_view name;
  uint64_t bytes;
};
constexpr std::array<Unit, 12> kUnits{{{"KIB", uint64_t{1} << 10},
                                       {"MIB", uint64_t{1} << 20},
                                       {"GIB", uint64_t{1} << 30},
                                       {"TIB", uint64_t{1} << 40},
                                       {"KB", 1000},
                                       {"MB", 1000000},
                                       {"GB", 1000000000},
                                       {"TB", 1000000000000},
                                       {"K", uint64_t{1} << 10},
                                       {"M", uint64_t{1} << 20},
                                       {"G", uint64_t{1} << 30},
                                       {"B", 1}}};

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return result;
}

template <typename T>
Status parse_number(std::string_view text, T& value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return invalid_argument("'" + std::string(text) + "' is no number");
  return {};
}

}  // namespace

Result<ByteSize> parse_byte_size(std::string_view text) {
  double number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit = upper(text.substr(static_cast<size_t>(end - text.data())));
  while (!unit.empty() && unit.front() == ' ') unit.erase(0, 1);
  uint64_t scale = unit.empty() ? 1 : 0;
  for (const Unit& known : kUnits)
    if (unit == known.name) scale = known.bytes;
  const double bytes = number * static_cast<double>(scale);
  if (error != std::errc() || scale == 0 || !(bytes >= 0) || bytes > 9e18)
    return invalid_argument("'" + std::string(text) + "' is no size: write it as 512MiB, 2GiB or 8GB");
  return ByteSize{static_cast<uint64_t>(bytes)};
}

std::string format_bytes(uint64_t bytes) {
  static constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text,
                unit == 0 || value >= 100 ? "%.0f %s"
                : value >= 10             ? "%.1f %s"
                                          : "%.2f %s",
                value, kNames[unit]);
  return text;
}

std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

std::string tessera_home() {
  if (auto home = environment("TESSERA_HOME")) return *home;
  return environment("HOME").value_or("/root") + "/.local/share/tessera";
}

Status parse_field(std::string_view text, bool& value) {
  const std::string word = upper(text);
  if (word == "TRUE" || word == "1" || word == "YES" || word == "ON") {
    value = true;
  } else if (word == "FALSE" || word == "0" || word == "NO" || word == "OFF") {
    value = false;
  } else {
    return invalid_argument("'" + std::string(text) + "' is neither true nor false");
  }
  return {};
}
Status parse_field(std::string_view text, int& value) {
  return parse_number(text, value);
}
Status parse_field(std::string_view text, double& value) {
  return parse_number(text, value);
}
Status parse_field(std::string_view text, std::string& value) {
  value = text;
  return {};
}
Status parse_field(std::string_view text, ByteSize& value) {
  TESSERA_ASSIGN_OR_RETURN(value, parse_byte_size(text));
  return {};
}
Status parse_field(std::string_view text, std::vector<std::string>& value) {
  value.clear();
  while (!text.empty()) {
    const size_t comma = text.find(',');
    value.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  return {};
}

std::string environment_name(std::string_view field) {
  std::string name = "TESSERA_" + upper(field);
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}

}  // namespace tessera
