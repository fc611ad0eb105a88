// Configuration as data: a struct lists its fields once, and flags, environment, file and documentation are
// made from that list. Precedence: flag > TESSERA_* environment > file > default.
//
//   struct ServeOptions {
//     std::string host = "127.0.0.1";
//     template <typename V> void fields(V& v) { v("host", host, "address to listen on"); }
//   };
//
// Field names are flag names: "max-batch-tokens" is --max-batch-tokens, TESSERA_MAX_BATCH_TOKENS and the
// file's key max-batch-tokens. Types: bool, int, double, std::string, ByteSize, std::vector<std::string>
// (repeatable; in the environment comma-separated), std::optional of these.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/status.h"

namespace tessera {

// A number of bytes a person writes as 512MiB, 2GiB, 8GB or a plain number.
struct ByteSize {
  uint64_t bytes = 0;
  bool operator==(const ByteSize&) const = default;
};
Result<ByteSize> parse_byte_size(std::string_view text);
// "1.5 GiB", "98.4 MB"-style for people: binary units, three significant digits.
std::string format_bytes(uint64_t bytes);

// The only place that reads the environment. Empty counts as unset.
std::optional<std::string> environment(const std::string& name);
// TESSERA_HOME, else ~/.local/share/tessera.
std::string tessera_home();

// Text to field value; InvalidArgument without naming the field (the caller adds it).
Status parse_field(std::string_view text, bool& value);
Status parse_field(std::string_view text, int& value);
Status parse_field(std::string_view text, double& value);
Status parse_field(std::string_view text, std::string& value);
Status parse_field(std::string_view text, ByteSize& value);
Status parse_field(std::string_view text, std::vector<std::string>& value);
template <typename T>
Status parse_field(std::string_view text, std::optional<T>& value) {
  T inner{};
  TESSERA_RETURN_IF_ERROR(parse_field(text, inner));
  value = std::move(inner);
  return {};
}

// TESSERA_MAX_BATCH_TOKENS for "max-batch-tokens".
std::string environment_name(std::string_view field);

}  // namespace tessera
