// Numbers on the command lines of the simulation's programs.
#pragma once

#include <charconv>
#include <string_view>

namespace tessera::sim {

// False unless all of `text` is one.
template <typename T>
bool parse_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace tessera::sim
