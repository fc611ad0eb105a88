// Arithmetic, comparison, membership and slices with Python's rules.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

constexpr Int kMaxInt = static_cast<Int>(~static_cast<unsigned __int128>(0) >> 1);

[[noreturn]] void fail_overflow() {
  fail_value("an integer of the template does not fit 128 bits");
}
Int add(Int a, Int b) {
  Int sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) fail_overflow();
  return sum;
}
Int multiply(Int a, Int b) {
  if (a == 0 || b == 0) return 0;
  const auto magnitude = [](Int x) { return x < 0 ? -x : x; };
  if (a == -kMaxInt - 1 || b == -kMaxInt - 1 || magnitude(a) > kMaxInt / magnitude(b)) fail_overflow();
  return a * b;
}

[[noreturn]] void fail_operands(std::string_view op, const Value& left, const Value& right) {
  require_defined(left);
  require_defined(right);
  fail_type("unsupported operand type(s) for " + std::string(op) + ": '" + std::string(type_name(left)) +
            "' and '" + std::string(type_name(right)) + "'");
}

Value concatenate_strings(Interpreter& in, const Value& left, const Value& right) {
  const bool left_safe = left.get<StringObject>().safe;
  const bool right_safe = right.get<StringObject>().safe;
  TextBuffer out(in.budget());
  const auto append = [&](const Value& part, bool escape) {
    if (escape) {
      append_escaped(out, part.text());
    } else {
      out.append(part.text());
    }
  };
  append(left, !left_safe && right_safe);
  append(right, left_safe && !right_safe);
  return in.string(out.take(), left_safe || right_safe);
}

Value add_values(Interpreter& in, const Value& left, const Value& right) {
  if (left.is_string() && right.is_string()) return concatenate_strings(in, left, right);
  if (left.type() == right.type() && (left.is(Type::kList) || left.is(Type::kTuple))) {
    std::vector<Value> items = items_of(in.budget(), left);
    in.budget().require_room((items.size() + right.get<SequenceObject>().items.size()) * sizeof(Value));
    for (const Value& item : right.get<SequenceObject>().items) items.push_back(item);
    return left.is(Type::kList) ? make_list(in.budget(), std::move(items))
                                : make_tuple(in.budget(), std::move(items));
  }
  require_defined(left);
  require_defined(right);
  if (left.is_string() || left.is(Type::kList) || left.is(Type::kTuple)) {
    const std::string kind(type_name(left));
    fail_type("can only concatenate " + kind + " (not \"" + std::string(type_name(right)) + "\") to " + kind);
  }
  fail_operands("+", left, right);
}

Value repeat(Interpreter& in, const Value& sequence, Int count) {
  if (sequence.is_string()) return multiply_string(in, sequence, count);
  const auto& items = sequence.get<SequenceObject>().items;
  const size_t times = count < 0 ? 0 : static_cast<size_t>(std::min<Int>(count, Int{1} << 48));
  if (!items.empty()) {
    in.budget().require_room(times);
    in.budget().require_room(items.size() * times * sizeof(Value));
  }
  std::vector<Value> out;
  for (size_t i = 0; i < (items.empty() ? 0 : times); ++i) {
    in.budget().tick(items.size());
    out.insert(out.end(), items.begin(), items.end());
  }
  return sequence.is(Type::kList) ? make_list(in.budget(), std::move(out))
                                  : make_tuple(in.budget(), std::move(out));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is(Type::kList) || value.is(Type::kTuple);
}

Value multiply_values(Interpreter& in, const Value& left, const Value& right) {
  if (is_repeatable(left) && right.is_integral()) return repeat(in, left, right.as_int());
  if (is_repeatable(right) && left.is_integral()) return repeat(in, right, left.as_int());
  if (is_repeatable(left)) {
    require_defined(right);
    fail_type("can't multiply sequence by non-int of type '" + std::string(type_name(right)) + "'");
  }
  fail_operands("*", left, right);
}

double float_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value power(const Value& left, const Value& right) {
  if (!left.is_integral() || !right.is_integral() || right.as_int() < 0) {
    const double base = left.as_real();
    const double exponent = right.as_real();
    if (base == 0 && exponent < 0) fail(ErrorKind::kZeroDivision, "0.0 cannot be raised to a negative power");
    if (base < 0 && exponent != std::floor(exponent))
      fail_value("a negative number has no real fractional power");
    const double result = std::pow(base, exponent);
    if (std::isinf(result) && !std::isinf(base) && !std::isinf(exponent))
      fail_value("Numerical result out of range");
    return Value::real(result);
  }
  Int base = left.as_int();
  Int exponent = right.as_int();
  if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? 1 : -1);
  if (exponent > 127) fail_overflow();
  Int result = 1;
  for (; exponent > 0; --exponent) result = multiply(result, base);
  return Value::integer(result);
}

Value divide_integers(BinaryOp op, Int a, Int b) {
  if (b == 0) {
    fail(ErrorKind::kZeroDivision, op == BinaryOp::kDivide   ? "division by zero"
                                   : op == BinaryOp::kModulo ? "integer modulo by zero"
                                                             : "integer division or modulo by zero");
  }
  if (op == BinaryOp::kDivide)
    return Value::real(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
  if (b == -1) {
    if (op == BinaryOp::kModulo) return Value::integer(0);
    return Value::integer(multiply(a, -1));
  }
  Int quotient = a / b;
  Int rest = a % b;
  if (rest != 0 && (rest < 0) != (b < 0)) {
    rest += b;
    --quotient;
  }
  return Value::integer(op == BinaryOp::kModulo ? rest : quotient);
}

Value number_operation(BinaryOp op, const Value& left, const Value& right) {
  if (op == BinaryOp::kPower) return power(left, right);
  if (left.is_integral() && right.is_integral()) {
    const Int a = left.as_int();
    const Int b = right.as_int();
    switch (op) {
      case BinaryOp::kAdd:
        return Value::integer(add(a, b));
      case BinaryOp::kSubtract:
        if (b == -kMaxInt - 1) fail_overflow();
        return Value::integer(add(a, -b));
      case BinaryOp::kMultiply:
        return Value::integer(multiply(a, b));
      default:
        return divide_integers(op, a, b);
    }
  }
  const double a = left.as_real();
  const double b = right.as_real();
  switch (op) {
    case BinaryOp::kAdd:
      return Value::real(a + b);
    case BinaryOp::kSubtract:
      return Value::real(a - b);
    case BinaryOp::kMultiply:
      return Value::real(a * b);
    case BinaryOp::kDivide:
      if (b == 0) fail(ErrorKind::kZeroDivision, "float division by zero");
      return Value::real(a / b);
    case BinaryOp::kFloorDivide:
      if (b == 0) fail(ErrorKind::kZeroDivision, "float floor division by zero");
      return Value::real(std::round((a - float_modulo(a, b)) / b));
    default:
      if (b == 0) fail(ErrorKind::kZeroDivision, "float modulo");
      return Value::real(float_modulo(a, b));
  }
}

}  // namespace

void fail_undefined(const Value& undefined) {
  const auto& object = undefined.get<UndefinedObject>();
  fail(object.kind, object.message);
}
void require_defined(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
}

Value multiply_string(Interpreter& in, const Value& text, Int count) {
  const size_t times = count < 0 ? 0 : static_cast<size_t>(std::min<Int>(count, Int{1} << 48));
  const std::string& unit = text.text();
  TextBuffer out(in.budget());
  if (unit.size() == 1) {
    out.append(times, unit[0]);
  } else if (!unit.empty()) {
    in.budget().require_room(times);
    in.budget().require_room(times * unit.size());
    for (size_t i = 0; i < times; ++i) out.append(unit);
  }
  return in.string(out.take(), text.get<StringObject>().safe);
}

Value binary_operation(Interpreter& in, BinaryOp op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) return number_operation(op, left, right);
  switch (op) {
    case BinaryOp::kAdd:
      return add_values(in, left, right);
    case BinaryOp::kMultiply:
      return multiply_values(in, left, right);
    case BinaryOp::kModulo:
      if (left.is_string()) return format_percent(in, left, right);
      fail_operands("%", left, right);
    case BinaryOp::kSubtract:
      fail_operands("-", left, right);
    case BinaryOp::kDivide:
      fail_operands("/", left, right);
    case BinaryOp::kFloorDivide:
      fail_operands("//", left, right);
    case BinaryOp::kPower:
      fail_operands("** or pow()", left, right);
  }
  fail_operands("operator", left, right);
}

bool contains(Interpreter& in, const Value& container, const Value& item) {
  Budget& budget = in.budget();
  switch (container.type()) {
    case Type::kString: {
      if (item.is_undefined() || !item.is_string())
        fail_type("'in <string>' requires string as left operand, not " + std::string(type_name(item)));
      const std::string& text = container.text();
      const std::string& part = item.text();
      budget.tick(1 + (text.size() + part.size()) / 64);
      // memmem takes linear time for every input, std::string::find does not
      return part.empty() || memmem(text.data(), text.size(), part.data(), part.size()) != nullptr;
    }
    case Type::kDict:
      return dict_find(budget, container.get<DictObject>(), item) != nullptr;
    case Type::kUndefined:
      return false;
    default:
      break;
  }
  if (!is_iterable(container))
    fail_type("argument of type '" + std::string(type_name(container)) + "' is not iterable");
  ValueReader reader(budget, container);
  for (Value candidate; reader.next(candidate);)
    if (equals(budget, candidate, item)) return true;
  return false;
}

bool compare_operation(Interpreter& in, CompareOp op, const Value& left, const Value& right) {
  Budget& budget = in.budget();
  const auto is_nan = [](const Value& value) {
    return value.is(Type::kFloat) && std::isnan(value.as_real());
  };
  const bool unordered = is_nan(left) || is_nan(right);
  switch (op) {
    case CompareOp::kEqual:
      return equals(budget, left, right);
    case CompareOp::kNotEqual:
      return !equals(budget, left, right);
    case CompareOp::kLess:
      return compare(budget, left, right, "<") < 0 && !unordered;
    case CompareOp::kLessEqual:
      return compare(budget, left, right, "<=") <= 0 && !unordered;
    case CompareOp::kGreater:
      return compare(budget, left, right, ">") > 0 && !unordered;
    case CompareOp::kGreaterEqual:
      return compare(budget, left, right, ">=") >= 0 && !unordered;
    case CompareOp::kIn:
      return contains(in, right, left);
    case CompareOp::kNotIn:
      return !contains(in, right, left);
  }
  return false;
}

namespace {

struct SliceRange {
  int64_t start, stop, step;
  // Calls take(index) for each index of the slice.
  template <typename Take>
  void each(Take take) const {
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) take(static_cast<size_t>(i));
  }
};

SliceRange resolve_slice(int64_t length, const Value& start, const Value& stop, const Value& step) {
  const auto bound = [](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    if (!value.is_integral()) fail_type("slice indices must be integers or None or have an __index__ method");
    const Int limit = Int{1} << 40;
    return static_cast<int64_t>(std::clamp<Int>(value.as_int(), -limit, limit));
  };
  SliceRange range{};
  range.step = bound(step, 1);
  if (range.step == 0) fail_value("slice step cannot be zero");
  const int64_t lowest = range.step > 0 ? 0 : -1;
  const int64_t highest = range.step > 0 ? length : length - 1;
  const auto place = [&](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    const int64_t index = bound(value, 0);
    return std::clamp(index < 0 ? index + length : index, lowest, highest);
  };
  range.start = place(start, range.step > 0 ? lowest : highest);
  range.stop = place(stop, range.step > 0 ? highest : lowest);
  return range;
}

Value slice_string(Interpreter& in, const Value& value, const SliceRange& range) {
  const auto& string = value.get<StringObject>();
  in.budget().tick(1 + string.text.size() / 64);
  in.budget().require_room(string.is_ascii() ? string.text.size() : string.text.size() * 5);
  std::string out;
  if (range.step == 1) {
    if (range.start >= range.stop) return in.string("", string.safe);
    size_t first = static_cast<size_t>(range.start);
    size_t last = static_cast<size_t>(range.stop);
    if (!string.is_ascii()) {
      first = byte_offset(string.text, first);
      last = first + byte_offset(std::string_view(string.text).substr(first),
                                 static_cast<size_t>(range.stop - range.start));
    }
    out = string.text.substr(first, last - first);
  } else if (string.is_ascii()) {
    range.each([&](size_t i) { out.push_back(string.text[i]); });
  } else {
    const std::u32string points = to_code_points(string.text);
    range.each([&](size_t i) { append_utf8(out, points[i]); });
  }
  return in.string(std::move(out), string.safe);
}

}  // namespace

Value slice_of(Interpreter& in, const Value& value, const Value& start, const Value& stop,
               const Value& step) {
  require_defined(value);
  const bool can_slice =
      value.is_string() || value.is(Type::kList) || value.is(Type::kTuple) || value.is(Type::kRange);
  if (value.is(Type::kDict)) fail_type("unhashable type: 'slice'");
  if (!can_slice) fail_type(quoted_type(value) + " object is not subscriptable");
  size_t length = 0;
  length_of(value, length);
  const SliceRange range = resolve_slice(static_cast<int64_t>(length), start, stop, step);
  if (value.is_string()) return slice_string(in, value, range);
  if (value.is(Type::kRange)) {
    const auto& whole = value.get<RangeObject>();
    size_t count = 0;
    range.each([&](size_t) { ++count; });
    return Value(make_object<RangeObject>(in.budget(), 0, whole.start + range.start * whole.step,
                                          whole.start + range.stop * whole.step, range.step * whole.step,
                                          count));
  }
  const auto& items = value.get<SequenceObject>().items;
  in.budget().require_room(items.size() * sizeof(Value));
  std::vector<Value> out;
  range.each([&](size_t i) { out.push_back(items[i]); });
  return value.is(Type::kList) ? make_list(in.budget(), std::move(out))
                               : make_tuple(in.budget(), std::move(out));
}

}  // namespace tessera::text::jinja
