#include "text/jinja_unicode.h"

#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace tessera::text::jinja {
namespace {

// The C library's Unicode tables; null (then only ASCII has classes) where it has no C.UTF-8.
locale_t unicode_locale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

using WideClass = int (*)(wint_t, locale_t);
bool has_class(char32_t c, WideClass test) {
  return unicode_locale() != nullptr && test(static_cast<wint_t>(c), unicode_locale()) != 0;
}
char32_t simple_upper(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return unicode_locale() == nullptr ? c : towupper_l(static_cast<wint_t>(c), unicode_locale());
}
char32_t simple_lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return unicode_locale() == nullptr ? c : towlower_l(static_cast<wint_t>(c), unicode_locale());
}

// Letters whose capital form is several letters: as a whole word, and at the start of a title-cased word.
struct SpecialCase {
  char32_t from;
  std::u32string_view upper, title;
};
constexpr std::array<SpecialCase, 20> kSpecialCases{{
    {0x00DF, U"SS", U"Ss"},
    {0x0149, U"\u02BCN", U"\u02BCN"},
    {0x01F0, U"J\u030C", U"J\u030C"},
    {0x0390, U"\u0399\u0308\u0301", U"\u0399\u0308\u0301"},
    {0x03B0, U"\u03A5\u0308\u0301", U"\u03A5\u0308\u0301"},
    {0x0587, U"\u0535\u0552", U"\u0535\u0582"},
    {0x1E96, U"H\u0331", U"H\u0331"},
    {0x1E97, U"T\u0308", U"T\u0308"},
    {0x1E98, U"W\u030A", U"W\u030A"},
    {0x1E99, U"Y\u030A", U"Y\u030A"},
    {0x1E9A, U"A\u02BE", U"A\u02BE"},
    {0x1F50, U"\u03A5\u0313", U"\u03A5\u0313"},
    {0xFB00, U"FF", U"Ff"},
    {0xFB01, U"FI", U"Fi"},
    {0xFB02, U"FL", U"Fl"},
    {0xFB03, U"FFI", U"Ffi"},
    {0xFB04, U"FFL", U"Ffl"},
    {0xFB05, U"ST", U"St"},
    {0xFB06, U"ST", U"St"},
    {0xFB13, U"\u0544\u0546", U"\u0544\u0576"},
}};

const SpecialCase* special_case(char32_t c) {
  if (c < 0xDF) return nullptr;
  for (const SpecialCase& special : kSpecialCases)
    if (special.from == c) return &special;
  return nullptr;
}

void append_upper(std::string& out, char32_t c) {
  if (const SpecialCase* special = special_case(c)) {
    out += to_utf8(special->upper);
  } else {
    append_utf8(out, simple_upper(c));
  }
}
void append_title(std::string& out, char32_t c) {
  if (const SpecialCase* special = special_case(c)) {
    out += to_utf8(special->title);
  } else if (c >= 0x1C4 && c <= 0x1CC) {
    append_utf8(out, c <= 0x1C6 ? 0x1C5 : c <= 0x1C9 ? 0x1C8 : 0x1CB);
  } else if (c >= 0x1F1 && c <= 0x1F3) {
    append_utf8(out, 0x1F2);
  } else if ((c >= 0x10D0 && c <= 0x10FA) || (c >= 0x10FD && c <= 0x10FF)) {
    append_utf8(out, c);  // Georgian has capitals but is not title-cased
  } else {
    append_utf8(out, simple_upper(c));
  }
}

bool is_cased(char32_t c) {
  return is_lower(c) || is_upper(c) || (c >= 0x1C5 && c <= 0x1F2 && simple_lower(c) != c);
}
bool is_case_ignorable(char32_t c) {
  return c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xA8 || c == 0xAD || c == 0xB7 ||
         c == 0x2019 || (c >= 0x300 && c <= 0x36F);
}

// Capital sigma becomes a final sigma at the end of a word.
bool is_final_sigma(std::u32string_view text, size_t at) {
  size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}
void append_lower(std::string& out, std::u32string_view text, size_t at) {
  const char32_t c = text[at];
  if (c == 0x3A3) {
    append_utf8(out, is_final_sigma(text, at) ? 0x3C2 : 0x3C3);
  } else if (c == 0x130) {
    out += "i\xCC\x87";
  } else {
    append_utf8(out, simple_lower(c));
  }
}

}  // namespace

size_t count_code_points(std::string_view text) {
  size_t count = 0;
  for (char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

char32_t next_code_point(std::string_view text, size_t& pos) {
  const auto byte = [&](size_t i) -> char32_t {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0x80;
  };
  const char32_t lead = byte(pos);
  if (lead < 0x80) {
    ++pos;
    return lead;
  }
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  char32_t c = lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) c = c << 6 | (byte(pos + i) & 0x3F);
  pos = std::min(pos + length, text.size());
  return c;
}

size_t byte_offset(std::string_view text, size_t index) {
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    if (index-- == 0) return i;
  }
  return text.size();
}

std::u32string to_code_points(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) out.push_back(next_code_point(text, pos));
  return out;
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char32_t c : text) append_utf8(out, c);
  return out;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}
bool is_line_break(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
}
bool is_decimal(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  // Decimal digits of other scripts come in runs of ten that start at these code points.
  static constexpr char32_t kZeros[] = {
      0x660,   0x6F0,   0x7C0,   0x966,   0x9E6,   0xA66,   0xAE6,   0xB66,   0xBE6,   0xC66,   0xCE6,
      0xD66,   0xDE6,   0xE50,   0xED0,   0xF20,   0x1040,  0x1090,  0x17E0,  0x1810,  0x1946,  0x19D0,
      0x1A80,  0x1A90,  0x1B50,  0x1BB0,  0x1C40,  0x1C50,  0xA620,  0xA8D0,  0xA900,  0xA9D0,  0xA9F0,
      0xAA50,  0xABF0,  0xFF10,  0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450,
      0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0,
      0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0};
  return std::any_of(std::begin(kZeros), std::end(kZeros), [&](char32_t z) { return c >= z && c < z + 10; });
}
bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
         (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) ||
         (c >= 0x2776 && c <= 0x277E);
}
bool is_numeric(char32_t c) {
  return is_digit(c) || (c >= 0xBC && c <= 0xBE) || (c >= 0x2150 && c <= 0x2189) ||
         (c >= 0x2460 && c <= 0x249B) || (c >= 0x24EA && c <= 0x24FF) || (c >= 0x2776 && c <= 0x2793) ||
         (c >= 0x3021 && c <= 0x3029);
}
bool is_alpha(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return !is_numeric(c) && has_class(c, iswalpha_l);
}
bool is_alnum(char32_t c) {
  return is_alpha(c) || is_numeric(c);
}
bool is_lower(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return c == 0xAA || c == 0xBA || c == 0xDF || has_class(c, iswlower_l);
}
bool is_upper(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return has_class(c, iswupper_l) && simple_lower(c) != c;
}
bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  if (c < 0xA1 || c == 0xAD || (c >= 0xE000 && c <= 0xF8FF) || c >= 0xE0000) return false;
  if (is_space(c) || (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) ||
      (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) ||
      (c >= 0x600 && c <= 0x605) || c == 0x61C || c == 0x6DD || c == 0x70F || c == 0x180E)
    return false;
  return has_class(c, iswprint_l);
}

std::string to_upper(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) append_upper(out, next_code_point(text, pos));
  return out;
}
std::string to_lower(std::string_view text) {
  const std::u32string points = to_code_points(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) append_lower(out, points, i);
  return out;
}
std::string capitalize(std::string_view text) {
  const std::u32string points = to_code_points(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (i == 0) {
      append_title(out, points[i]);
    } else {
      append_lower(out, points, i);
    }
  }
  return out;
}
std::string title_case(std::string_view text) {
  const std::u32string points = to_code_points(text);
  std::string out;
  bool inside_word = false;
  for (size_t i = 0; i < points.size(); ++i) {
    if (inside_word) {
      append_lower(out, points, i);
    } else {
      append_title(out, points[i]);
    }
    inside_word = is_cased(points[i]);
  }
  return out;
}
std::string swap_case(std::string_view text) {
  const std::u32string points = to_code_points(text);
  std::string out;
  for (size_t i = 0; i < points.size(); ++i) {
    if (is_upper(points[i])) {
      append_lower(out, points, i);
    } else {
      append_upper(out, points[i]);
    }
  }
  return out;
}

std::string_view trim_spaces(std::string_view text, bool left, bool right) {
  if (left) {
    size_t pos = 0;
    for (size_t next = 0; pos < text.size() && is_space(next_code_point(text, next));) pos = next;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t pos = start;
    if (!is_space(next_code_point(text, pos))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string int_to_string(Int value) {
  if (value == 0) return "0";
  const bool negative = value < 0;
  std::string digits;
  while (value != 0) {
    const int digit = static_cast<int>(value % 10);
    digits.push_back(static_cast<char>('0' + (digit < 0 ? -digit : digit)));
    value /= 10;
  }
  if (negative) digits.push_back('-');
  std::reverse(digits.begin(), digits.end());
  return digits;
}

bool parse_int(std::string_view text, int base, Int& out) {
  text = trim_spaces(text, true, true);
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const auto prefix_base = [&]() -> int {
    if (text.size() < 2 || text[0] != '0') return 0;
    const char c = static_cast<char>(text[1] | 0x20);
    return c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
  }();
  bool after_digit = false;
  if (prefix_base != 0 && (base == 0 || base == prefix_base)) {
    text.remove_prefix(2);
    base = prefix_base;
    after_digit = true;  // "0x_1" is allowed
  } else if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != text.npos) return false;
    base = 10;
  }
  if (base < 2 || base > 36 || text.empty() || text == "_") return false;
  constexpr Int kMax = static_cast<Int>(~static_cast<unsigned __int128>(0) >> 1);
  Int value = 0;
  for (char c : text) {
    if (c == '_') {
      if (!after_digit) return false;
      after_digit = false;
      continue;
    }
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 10
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                             : 99;
    if (digit >= base || value > (kMax - digit) / base) return false;
    value = value * base + digit;
    after_digit = true;
  }
  if (!after_digit) return false;
  out = negative ? -value : value;
  return true;
}

bool parse_float(std::string_view text, double& out) {
  text = trim_spaces(text, true, true);
  std::string cleaned;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      cleaned.push_back(text[i]);
      continue;
    }
    const bool between_digits = i > 0 && i + 1 < text.size() &&
                                is_decimal(static_cast<unsigned char>(text[i - 1])) &&
                                is_decimal(static_cast<unsigned char>(text[i + 1]));
    if (!between_digits) return false;
  }
  std::string_view number = cleaned;
  bool negative = false;
  if (!number.empty() && (number[0] == '+' || number[0] == '-')) {
    negative = number[0] == '-';
    number.remove_prefix(1);
  }
  if (number.empty() || number[0] == '+' || number[0] == '-') return false;
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (end != number.data() + number.size() || number.back() == ')') return false;  // no "nan(...)"
  if (error == std::errc::result_out_of_range) {
    value = std::strtod(std::string(number).c_str(), nullptr);
  } else if (error != std::errc()) {
    return false;
  }
  out = negative ? -value : value;
  return true;
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer{};
  const auto result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  std::string_view text(buffer.data(), static_cast<size_t>(result.ptr - buffer.data()));
  std::string out;
  if (text[0] == '-') {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  std::string digits(text.substr(0, 1));
  if (e > 2) digits += text.substr(2, e - 2);
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    const std::string magnitude = std::to_string(std::abs(exponent));
    return out + (exponent < 0 ? "e-" : "e+") + (magnitude.size() < 2 ? "0" : "") + magnitude;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string string_repr(std::string_view text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out(1, quote);
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else {
      const int width = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
      out += width == 2 ? "\\x" : width == 4 ? "\\u" : "\\U";
      for (int shift = 4 * (width - 1); shift >= 0; shift -= 4) out.push_back(kHex[c >> shift & 15]);
    }
  }
  out.push_back(quote);
  return out;
}

}  // namespace tessera::text::jinja
