// str methods that change case, padding and ends, and that ask about all characters.
#include <algorithm>

#include "text/jinja_text_util.h"

namespace tessera::text::jinja {
namespace {

Value same_kind(Interpreter& in, const Value& self, std::string text) {
  return in.string(std::move(text), self.get<StringObject>().safe);
}

template <std::string (*kMap)(std::string_view)>
Value map_case(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("method", args, {});
  in.budget().tick(1 + self.text().size() / 16);
  in.budget().require_room(self.text().size() * 8);
  return same_kind(in, self, kMap(self.text()));
}

template <bool kLeft, bool kRight>
Value strip(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kLeft && kRight ? "strip" : kLeft ? "lstrip" : "rstrip", args, {"chars"});
  const std::string* chars = bound[0].is_none() ? nullptr : &require_text(bound[0]);
  return same_kind(in, self, std::string(strip_text(in.budget(), self.text(), chars, kLeft, kRight)));
}

template <int kSide>
Value justify(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kSide < 0 ? "ljust" : kSide > 0 ? "rjust" : "center", args, {"width", "fillchar"}, 1);
  std::string fill = " ";
  if (bound.has(1)) fill = require_text(bound[1]);
  if (count_code_points(fill) != 1) fail_type("The fill character must be exactly one character long");
  return pad_text(in, self, bound.small(0), kSide, fill);
}

Value zfill(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("zfill", args, {"width"}, 1);
  const std::string& text = self.text();
  const bool has_sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  const auto length = static_cast<int64_t>(self.get<StringObject>().length);
  const int64_t zeros = std::max<int64_t>(0, std::min<int64_t>(bound.small(0), int64_t{1} << 40) - length);
  TextBuffer out(in.budget());
  if (has_sign) out.push_back(text[0]);
  out.append(static_cast<size_t>(zeros), '0');
  out.append(std::string_view(text).substr(has_sign ? 1 : 0));
  return same_kind(in, self, out.take());
}

template <bool (*kClass)(char32_t), bool kOfEmpty = false>
Value all_are(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("method", args, {});
  const std::string& text = self.text();
  in.budget().tick(1 + text.size() / 16);
  for (size_t pos = 0; pos < text.size();)
    if (!kClass(next_code_point(text, pos))) return Value::boolean(false);
  return Value::boolean(kOfEmpty || !text.empty());
}

bool is_ascii(char32_t c) {
  return c < 0x80;
}

template <bool (*kClass)(char32_t), bool (*kOpposite)(char32_t)>
Value has_case(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("method", args, {});
  const std::string& text = self.text();
  in.budget().tick(1 + text.size() / 16);
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (kOpposite(c)) return Value::boolean(false);
    any = any || kClass(c);
  }
  return Value::boolean(any);
}

Value is_title(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("istitle", args, {});
  const std::string& text = self.text();
  in.budget().tick(1 + text.size() / 16);
  bool any = false;
  bool inside_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (is_upper(c) ? inside_word : is_lower(c) && !inside_word) return Value::boolean(false);
    inside_word = is_upper(c) || is_lower(c);
    any = any || inside_word;
  }
  return Value::boolean(any);
}

Value is_identifier(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("isidentifier", args, {});
  const std::string& text = self.text();
  bool first = true;
  for (size_t pos = 0; pos < text.size(); first = false) {
    const char32_t c = next_code_point(text, pos);
    if (c != '_' && !is_alpha(c) && (first || !is_decimal(c))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

template <bool kPrefix>
Value remove_affix(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kPrefix ? "removeprefix" : "removesuffix", args, {"affix"}, 1);
  const std::string_view text = self.text();
  const std::string_view affix = require_text(bound[0]);
  if (affix.empty() || affix.size() > text.size()) return self;
  const std::string_view rest =
      kPrefix ? text.substr(affix.size()) : text.substr(0, text.size() - affix.size());
  const std::string_view end = kPrefix ? text.substr(0, affix.size()) : text.substr(rest.size());
  return end == affix ? same_kind(in, self, std::string(rest)) : self;
}

Value expand_tabs(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("expandtabs", args, {"tabsize"});
  const auto width = std::clamp<int64_t>(bound.small(0, 8), 0, int64_t{1} << 40);
  TextBuffer out(in.budget());
  int64_t column = 0;
  const std::string& text = self.text();
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(text, pos);
    if (c == '\t') {
      const int64_t spaces = width == 0 ? 0 : width - column % width;
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
      continue;
    }
    out.append(std::string_view(text).substr(start, pos - start));
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  }
  return same_kind(in, self, out.take());
}

Value format_method(Interpreter& in, const Value& self, CallArgs& args) {
  return format_braces(in, self, args);
}

Value encode(Interpreter&, const Value&, CallArgs&) {
  fail(ErrorKind::kSecurity, "a chat template must not use str.encode: there are no bytes here");
}

constexpr Builtin kMethods[] = {
    {"capitalize", map_case<capitalize>},
    {"casefold", map_case<to_lower>},
    {"center", justify<0>},
    {"encode", encode},
    {"expandtabs", expand_tabs},
    {"format", format_method},
    {"isalnum", all_are<is_alnum>},
    {"isalpha", all_are<is_alpha>},
    {"isascii", all_are<is_ascii, true>},
    {"isdecimal", all_are<is_decimal>},
    {"isdigit", all_are<is_digit>},
    {"isidentifier", is_identifier},
    {"islower", has_case<is_lower, is_upper>},
    {"isnumeric", all_are<is_numeric>},
    {"isprintable", all_are<is_printable, true>},
    {"isspace", all_are<is_space>},
    {"istitle", is_title},
    {"isupper", has_case<is_upper, is_lower>},
    {"ljust", justify<-1>},
    {"lower", map_case<to_lower>},
    {"lstrip", strip<true, false>},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"rjust", justify<1>},
    {"rstrip", strip<false, true>},
    {"strip", strip<true, true>},
    {"swapcase", map_case<swap_case>},
    {"title", map_case<title_case>},
    {"upper", map_case<to_upper>},
    {"zfill", zfill},
};

}  // namespace

std::span<const Builtin> string_methods() {
  return kMethods;
}

}  // namespace tessera::text::jinja
