// How the interpreter's parts report a failing template: thrown by the lexer, the parser and the evaluation,
// caught only in chat_template.cc, which turns it into a Status. Never leaves src/text.
#pragma once

#include <string>
#include <utility>

namespace tessera::text::jinja {

// The class of Python exception that the reference implementation would raise.
enum class ErrorKind {
  kSyntax,
  kUndefined,  // use of an undefined name or attribute
  kType,
  kValue,
  kZeroDivision,
  kSecurity,  // the sandbox refuses
  kRaised,    // raise_exception(message): the message is the template author's
  kRuntime,
  kLimit,  // a TemplateLimits bound was reached
};

struct TemplateError {
  ErrorKind kind;
  std::string message;
  int line = 0;  // 0: not known
};

[[noreturn]] inline void fail(ErrorKind kind, std::string message) {
  throw TemplateError{kind, std::move(message), 0};
}
[[noreturn]] inline void fail_syntax(std::string message, int line) {
  throw TemplateError{ErrorKind::kSyntax, std::move(message), line};
}
[[noreturn]] inline void fail_type(std::string message) {
  fail(ErrorKind::kType, std::move(message));
}
[[noreturn]] inline void fail_value(std::string message) {
  fail(ErrorKind::kValue, std::move(message));
}

}  // namespace tessera::text::jinja
