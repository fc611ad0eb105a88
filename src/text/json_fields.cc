#include "text/json_fields.h"

#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace tessera::text {
namespace {

Status wrong_type(const char* key, const char* expected) {
  return corrupt(std::string("tokenizer: \"") + key + "\" is not " + expected);
}

}  // namespace

const Json* find_member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> read_string(const Json& object, const char* key) {
  const Json* member = find_member(object, key);
  if (member == nullptr || !member->is_string()) return wrong_type(key, "a string");
  return member->get<std::string>();
}

Result<std::string> read_string(const Json& object, const char* key, std::string fallback) {
  if (find_member(object, key) == nullptr) return fallback;
  return read_string(object, key);
}

Result<bool> read_bool(const Json& object, const char* key, bool fallback) {
  const Json* member = find_member(object, key);
  if (member == nullptr) return fallback;
  if (!member->is_boolean()) return wrong_type(key, "true or false");
  return member->get<bool>();
}

Result<int32_t> read_int(const Json& object, const char* key, int32_t fallback) {
  const Json* member = find_member(object, key);
  if (member == nullptr) return fallback;
  if (!member->is_number_unsigned() || member->get<uint64_t>() > INT32_MAX)
    return wrong_type(key, "a whole number from 0 to 2^31 - 1");
  return static_cast<int32_t>(member->get<uint64_t>());
}

Result<char32_t> read_character(const Json& object, const char* key, char32_t fallback) {
  if (find_member(object, key) == nullptr) return fallback;
  TESSERA_ASSIGN_OR_RETURN(const std::string text, read_string(object, key));
  size_t at = 0;
  if (text.empty()) return wrong_type(key, "one character");
  const char32_t c = next_code_point(text, at);
  if (at != text.size()) return wrong_type(key, "one character");
  return c;
}

Result<TextPattern> TextPattern::parse(const Json& object, const char* key) {
  const Json* member = find_member(object, key);
  if (member == nullptr || !member->is_object() || member->size() != 1)
    return wrong_type(key, "a pattern of type String or Regex");
  const std::string kind = member->begin().key();
  TESSERA_ASSIGN_OR_RETURN(std::string text, read_string(*member, kind.c_str()));
  if (kind == "Regex") {
    TESSERA_ASSIGN_OR_RETURN(Regex compiled, Regex::compile(text));
    return regex(std::move(compiled));
  }
  if (kind != "String") return unsupported("tokenizer: a pattern of type \"" + kind + "\"");
  if (text.empty()) return unsupported("tokenizer: an empty pattern");
  return literal(std::move(text));
}

TextPattern TextPattern::literal(std::string text) {
  TextPattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

TextPattern TextPattern::regex(Regex regex) {
  TextPattern pattern;
  pattern.regex_ = std::move(regex);
  return pattern;
}

Status TextPattern::for_each_match(std::string_view text, const Regex::OnMatch& on_match) const {
  if (regex_) return regex_->for_each_match(text, on_match);
  for (size_t at = text.find(literal_); at != std::string_view::npos;) {
    TESSERA_RETURN_IF_ERROR(on_match(at, at + literal_.size()));
    at = text.find(literal_, at + literal_.size());
  }
  return {};
}

Result<std::string> replace_all(std::string_view text, const TextPattern& pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  size_t kept = 0;
  TESSERA_RETURN_IF_ERROR(pattern.for_each_match(text, [&](size_t begin, size_t end) -> Status {
    out.append(text, kept, begin - kept).append(content);
    kept = end;
    if (out.size() > kMaxNormalizedBytes)
      return resource_exhausted("the text grows too much when normalized");
    return {};
  }));
  out.append(text, kept);
  return out;
}

}  // namespace tessera::text
