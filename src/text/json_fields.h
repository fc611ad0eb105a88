// Reading the members of tokenizer.json objects: a wrong type is an error that names the member.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/regex.h"

namespace tessera::text {

// The member, or null when it is absent or JSON null.
const Json* find_member(const Json& object, const char* key);
Result<std::string> read_string(const Json& object, const char* key);
Result<std::string> read_string(const Json& object, const char* key, std::string fallback);
Result<bool> read_bool(const Json& object, const char* key, bool fallback);
// Refuses numbers outside [0, INT32_MAX].
Result<int32_t> read_int(const Json& object, const char* key, int32_t fallback);
// The member's one character.
Result<char32_t> read_character(const Json& object, const char* key, char32_t fallback);

// {"String": …} or {"Regex": …}.
class TextPattern {
 public:
  static Result<TextPattern> parse(const Json& object, const char* key);
  static TextPattern literal(std::string text);
  static TextPattern regex(Regex regex);
  // As Regex::for_each_match.
  Status for_each_match(std::string_view text, const Regex::OnMatch& on_match) const;
  // Null: a regular expression.
  const std::string* literal_text() const { return regex_ ? nullptr : &literal_; }

 private:
  std::string literal_;
  std::optional<Regex> regex_;
};

// The text with every match replaced; ResourceExhausted beyond the size that a text may grow to.
Result<std::string> replace_all(std::string_view text, const TextPattern& pattern, std::string_view content);

// What a normalized text may grow to: a guard against files that blow up their input.
inline constexpr size_t kMaxNormalizedBytes = size_t{512} << 20;

}  // namespace tessera::text
