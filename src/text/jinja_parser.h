// Tokens to statements and expressions.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "text/jinja_ast.h"

namespace tessera::text::jinja {

struct ParsedTemplate {
  Body body;
  std::set<std::string, std::less<>> names;  // every variable that the template mentions
};

// Nesting is bounded; include, import, extends and autoescape are refused. Takes valid UTF-8.
// Throws TemplateError with a line.
ParsedTemplate parse_template(std::string_view source);

}  // namespace tessera::text::jinja
