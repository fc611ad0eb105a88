// The builtin names of the template language, as tables of functions.
#pragma once

#include <initializer_list>
#include <span>

#include "text/jinja_interpreter.h"

namespace tessera::text::jinja {

// A filter gets the piped value, a method the object before the dot, as `self`.
using BuiltinFunction = Value (*)(Interpreter& in, const Value& self, CallArgs& args);
struct Builtin {
  std::string_view name;
  BuiltinFunction function;
};
using TestFunction = bool (*)(Interpreter& in, const Value& value, CallArgs& args);

BuiltinFunction find_filter(std::string_view name);  // null: no such filter
TestFunction find_test(std::string_view name);
// A method of the value's type; null where it has none. Methods that would change a value are not in it.
BuiltinFunction find_method(const Value& value, std::string_view name);
// Does Python's type have this attribute, and does the sandbox refuse it?
bool is_refused_attribute(const Value& value, std::string_view name);
// Functions and classes known everywhere (range, namespace, raise_exception, ...); false: no such name.
bool find_global(Interpreter& in, std::string_view name, Value& value);

// The parts of the filter and method tables, by file.
std::span<const Builtin> text_filters();
std::span<const Builtin> markup_filters();
std::span<const Builtin> number_filters();
std::span<const Builtin> sequence_filters();
std::span<const Builtin> selection_filters();
std::span<const Builtin> string_methods();
std::span<const Builtin> string_search_methods();

// Operators of jinja_operators.cc.
Value binary_operation(Interpreter& in, BinaryOp op, const Value& left, const Value& right);
bool contains(Interpreter& in, const Value& container, const Value& item);
bool compare_operation(Interpreter& in, CompareOp op, const Value& left, const Value& right);
Value slice_of(Interpreter& in, const Value& value, const Value& start, const Value& stop, const Value& step);
Value multiply_string(Interpreter& in, const Value& text, Int count);

// "%s" % value and str.format, of jinja_format.cc.
Value format_percent(Interpreter& in, const Value& format, const Value& values);
Value format_braces(Interpreter& in, const Value& format, CallArgs& args);
// format(number, ".1f") for doubles.
std::string fixed(double value, int precision);

// json.dumps of the value, of jinja_tojson.cc; arguments: ensure_ascii, indent, separators, sort_keys.
Value filter_tojson(Interpreter& in, const Value& self, CallArgs& args);

// HTML-escapes & < > " '.
void append_escaped(TextBuffer& out, std::string_view text);

[[noreturn]] void fail_undefined(const Value& undefined);
// Throws the value's error if it is undefined.
void require_defined(const Value& value);

// The arguments of a builtin bound to its parameters' names.
class Bound {
 public:
  // Throws a type error in Python's words for missing, surplus or unknown arguments.
  Bound(std::string_view function, CallArgs& args, std::initializer_list<std::string_view> names,
        size_t required = 0);
  bool has(size_t i) const { return present_[i]; }
  const Value& operator[](size_t i) const { return values_[i]; }  // None where absent
  bool flag(size_t i, bool otherwise = false) const { return present_[i] ? is_true(values_[i]) : otherwise; }
  Int integer(size_t i, Int otherwise = 0) const;        // throws unless an integer
  int64_t small(size_t i, int64_t otherwise = 0) const;  // clamped to 64 bits

 private:
  std::string_view function_;
  std::vector<Value> values_;
  std::vector<bool> present_;
};
Int require_int(const Value& value);
int64_t clamp(Int value);

// item -> item.attribute, where the attribute may be "a.b.0"; None: the item itself.
class AttributeGetter {
 public:
  AttributeGetter(Interpreter& in, const Value& attribute, bool ignore_case = false,
                  Value default_value = Value());
  Value operator()(const Value& item) const;

 private:
  Interpreter& in_;
  std::vector<Value> parts_;
  bool ignore_case_;
  Value default_;
};

// Stable; compares with "<" and throws what that throws. `keys[i]` belongs to `items[i]`.
std::vector<Value> sort_by_keys(Interpreter& in, std::vector<Value> items, const std::vector<Value>& keys,
                                bool reverse);

}  // namespace tessera::text::jinja
