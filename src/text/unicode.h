// Code points, their classes and the four normal forms (Unicode 14), as tokenizers need them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace tessera::text {

// The code point at `at`, which moves behind it. A byte that starts no well-formed sequence counts alone, as
// U+FFFD.
char32_t next_code_point(std::string_view text, size_t& at);
// Bytes of the sequence that this first byte announces; 1 for a byte that starts none.
inline size_t utf8_length(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0xC2 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF5 ? 4 : 1;
}
// Bytes at the end of `text` that begin a well-formed sequence but do not end it (0 to 3).
size_t incomplete_utf8_tail(std::string_view text);

bool is_whitespace(char32_t c);       // White_Space
bool is_number(char32_t c);           // N*
bool is_mark(char32_t c);             // M*
bool is_nonspacing_mark(char32_t c);  // Mn
bool is_punctuation(char32_t c);      // P* or an ASCII symbol
bool is_other(char32_t c);            // control, format, surrogate, private use
bool is_word_character(char32_t c);   // letters, marks, decimal digits, letter numbers, connectors
bool is_cjk_ideograph(char32_t c);    // the blocks that BERT treats as one word a character
void append_lower(std::string& out, char32_t c);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view text, NormalForm form);

}  // namespace tessera::text
