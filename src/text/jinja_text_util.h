// Searching and splitting of UTF-8 text, shared by string methods and text filters.
#pragma once

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {

// Byte position of `part` at or after `from`, or npos; linear time for every input. `part` is not empty.
size_t find_text(Budget& budget, std::string_view text, std::string_view part, size_t from = 0);
// The last one, ending at or before `end`.
size_t rfind_text(Budget& budget, std::string_view text, std::string_view part, size_t end);
// Python's str.replace; `count` < 0: all.
void append_replaced(TextBuffer& out, Budget& budget, std::string_view text, std::string_view old_text,
                     std::string_view new_text, int64_t count);
// Python's str.splitlines.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
// strip of the code points of `chars` (nullptr: white space).
std::string_view strip_text(Budget& budget, std::string_view text, const std::string* chars, bool left,
                            bool right);
// Spaces (or `fill`) around `text` up to `width` code points; -1 left-justified, 0 centred, 1
// right-justified.
Value pad_text(Interpreter& in, const Value& text, int64_t width, int side, std::string_view fill);
// The text of a string argument; throws a type error for anything else.
const std::string& require_text(const Value& value);

}  // namespace tessera::text::jinja
