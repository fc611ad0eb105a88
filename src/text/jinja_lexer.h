// Template text to tokens: delimiters, whitespace control, raw blocks, comments, literals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_unicode.h"

namespace tessera::text::jinja {

enum class TokenKind {
  kData,           // text between tags, whitespace control already applied
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,  // text holds the unescaped value
  kInteger,
  kFloat,
  kOperator,  // text holds the operator
  kEnd,
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;
  Int integer = 0;
  double real = 0;
};

// The tokens of a template, the last of which is kEnd. Line ends become "\n", one at the very end is dropped;
// a newline right after a block tag or comment is dropped, and so are blanks before one on its line
// (trim_blocks, lstrip_blocks). Takes valid UTF-8. Throws TemplateError.
std::vector<Token> tokenize(std::string_view source);

}  // namespace tessera::text::jinja
