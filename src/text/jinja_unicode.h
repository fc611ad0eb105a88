// Text as Python sees it: code points, their classes, case mapping, number and string literals.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace tessera::text::jinja {

__extension__ typedef __int128 Int;  // integers of the template language; overflow is an error, never a wrap

// All take valid UTF-8.
size_t count_code_points(std::string_view text);
std::u32string to_code_points(std::string_view text);
std::string to_utf8(std::u32string_view text);
// The code point at `pos`, which moves behind it.
char32_t next_code_point(std::string_view text, size_t& pos);
// Byte offset of code point `index` (the size of text when beyond).
size_t byte_offset(std::string_view text, size_t index);

bool is_space(char32_t c);
bool is_line_break(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_printable(char32_t c);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
// str.capitalize(), str.title(), str.swapcase() of Python.
std::string capitalize(std::string_view text);
std::string title_case(std::string_view text);
std::string swap_case(std::string_view text);

std::string_view trim_spaces(std::string_view text, bool left, bool right);

std::string int_to_string(Int value);
// Decimal digits with optional sign and underscores between digits, spaces around (what Python's int()
// reads); false when it is no number or does not fit.
bool parse_int(std::string_view text, int base, Int& out);
// What Python's float() reads: also "inf", "nan", underscores, spaces around.
bool parse_float(std::string_view text, double& out);
// Python's repr: shortest digits that read back, "1.0", "1e+16", "inf", "nan".
std::string float_repr(double value);
// Python's repr of a str, with quotes.
std::string string_repr(std::string_view text);

}  // namespace tessera::text::jinja
