// The tests of `is`.
#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

template <Type kType>
bool is_type(Interpreter&, const Value& value, CallArgs&) {
  return value.is(kType);
}

bool test_defined(Interpreter&, const Value& value, CallArgs&) {
  return !value.is_undefined();
}
template <bool kWanted>
bool test_boolean_value(Interpreter&, const Value& value, CallArgs&) {
  return value.is(Type::kBool) && value.as_bool() == kWanted;
}
bool test_number(Interpreter&, const Value& value, CallArgs&) {
  return value.is_number();
}
bool test_sequence(Interpreter&, const Value& value, CallArgs&) {
  size_t length = 0;
  return length_of(value, length) && !value.is(Type::kView) && !value.is(Type::kLoop);
}
bool test_iterable(Interpreter&, const Value& value, CallArgs&) {
  return is_iterable(value) || value.is(Type::kLoop);
}
bool test_callable(Interpreter&, const Value& value, CallArgs&) {
  return value.is(Type::kCallable) || value.is(Type::kMacro) || value.is(Type::kLoop) ||
         value.is(Type::kJoiner) || value.is_undefined();
}
bool test_escaped(Interpreter&, const Value& value, CallArgs&) {
  return value.is_string() && value.get<StringObject>().safe;
}

bool modulo_is(Interpreter& in, const Value& value, const Value& by, Int wanted) {
  const Value rest = binary_operation(in, BinaryOp::kModulo, value, by);
  return equals(in.budget(), rest, Value::integer(wanted));
}
bool test_odd(Interpreter& in, const Value& value, CallArgs&) {
  return modulo_is(in, value, Value::integer(2), 1);
}
bool test_even(Interpreter& in, const Value& value, CallArgs&) {
  return modulo_is(in, value, Value::integer(2), 0);
}
bool test_divisibleby(Interpreter& in, const Value& value, CallArgs& args) {
  return modulo_is(in, value, Bound("test_divisibleby", args, {"num"}, 1)[0], 0);
}

template <bool (*kClass)(char32_t), bool (*kOpposite)(char32_t)>
bool test_case(Interpreter& in, const Value& value, CallArgs&) {
  const std::string text = in.text_of(value);
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (kOpposite(c)) return false;
    any = any || kClass(c);
  }
  return any;
}

template <CompareOp kOp>
bool test_compare(Interpreter& in, const Value& value, CallArgs& args) {
  return compare_operation(in, kOp, value, Bound("test", args, {"other"}, 1)[0]);
}
bool test_sameas(Interpreter&, const Value& value, CallArgs& args) {
  return value.same_as(Bound("test_sameas", args, {"other"}, 1)[0]);
}
bool test_filter(Interpreter&, const Value& value, CallArgs&) {
  return value.is_string() && find_filter(value.text()) != nullptr;
}
bool test_test(Interpreter&, const Value& value, CallArgs&) {
  return value.is_string() && find_test(value.text()) != nullptr;
}

struct TestEntry {
  std::string_view name;
  TestFunction function;
};

constexpr TestEntry kTests[] = {
    {"!=", test_compare<CompareOp::kNotEqual>},
    {"<", test_compare<CompareOp::kLess>},
    {"<=", test_compare<CompareOp::kLessEqual>},
    {"==", test_compare<CompareOp::kEqual>},
    {">", test_compare<CompareOp::kGreater>},
    {">=", test_compare<CompareOp::kGreaterEqual>},
    {"boolean", is_type<Type::kBool>},
    {"callable", test_callable},
    {"defined", test_defined},
    {"divisibleby", test_divisibleby},
    {"eq", test_compare<CompareOp::kEqual>},
    {"equalto", test_compare<CompareOp::kEqual>},
    {"escaped", test_escaped},
    {"even", test_even},
    {"false", test_boolean_value<false>},
    {"filter", test_filter},
    {"float", is_type<Type::kFloat>},
    {"ge", test_compare<CompareOp::kGreaterEqual>},
    {"greaterthan", test_compare<CompareOp::kGreater>},
    {"gt", test_compare<CompareOp::kGreater>},
    {"in", test_compare<CompareOp::kIn>},
    {"integer", is_type<Type::kInt>},
    {"iterable", test_iterable},
    {"le", test_compare<CompareOp::kLessEqual>},
    {"lessthan", test_compare<CompareOp::kLess>},
    {"lower", test_case<is_lower, is_upper>},
    {"lt", test_compare<CompareOp::kLess>},
    {"mapping", is_type<Type::kDict>},
    {"ne", test_compare<CompareOp::kNotEqual>},
    {"none", is_type<Type::kNone>},
    {"number", test_number},
    {"odd", test_odd},
    {"sameas", test_sameas},
    {"sequence", test_sequence},
    {"string", is_type<Type::kString>},
    {"test", test_test},
    {"true", test_boolean_value<true>},
    {"undefined", is_type<Type::kUndefined>},
    {"upper", test_case<is_upper, is_lower>},
};

}  // namespace

TestFunction find_test(std::string_view name) {
  for (const TestEntry& entry : kTests)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace tessera::text::jinja
