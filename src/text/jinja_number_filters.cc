// Filters on numbers, and default.
#include <algorithm>
#include <cmath>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

// Python's int(float): throws what does not fit; false for nan.
bool truncate_real(double value, Int& out) {
  if (std::isnan(value)) return false;
  if (std::isinf(value)) fail_value("cannot convert float infinity to integer");
  if (std::abs(value) >= 1.7e38) fail_value("an integer of the template does not fit 128 bits");
  out = static_cast<Int>(value);
  return true;
}

Value filter_int(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("do_int", args, {"default", "base"});
  require_defined(self);
  const Value otherwise = bound.has(0) ? bound[0] : Value::integer(0);
  Int number = 0;
  if (self.is_integral()) return Value::integer(self.as_int());
  if (self.is(Type::kFloat))
    return truncate_real(self.as_real(), number) ? Value::integer(number) : otherwise;
  if (!self.is_string()) return otherwise;
  if (parse_int(self.text(), static_cast<int>(std::clamp<int64_t>(bound.small(1, 10), -1, 99)), number))
    return Value::integer(number);
  double real = 0;
  if (!parse_float(self.text(), real) || !std::isfinite(real)) return otherwise;
  truncate_real(real, number);
  return Value::integer(number);
}

Value filter_float(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("do_float", args, {"default"});
  require_defined(self);
  if (self.is_number()) return Value::real(self.as_real());
  double number = 0;
  if (self.is_string() && parse_float(self.text(), number)) return Value::real(number);
  return bound.has(0) ? bound[0] : Value::real(0);
}

Value filter_abs(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("abs", args, {});
  if (!self.is_number()) fail_type("bad operand type for abs(): '" + std::string(type_name(self)) + "'");
  if (self.is(Type::kFloat)) return Value::real(std::abs(self.as_real()));
  return self.as_int() < 0 ? binary_operation(in, BinaryOp::kSubtract, Value::integer(0), self)
                           : Value::integer(self.as_int());
}

Int round_integer(Int value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -37) return 0;
  Int unit = 1;
  for (int64_t i = digits; i < 0; ++i) unit *= 10;
  const Int rest = ((value % unit) + unit) % unit;
  const Int base = value - rest;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (base / unit) % 2 != 0);
  return up ? base + unit : base;
}

double round_real(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 320) return value;
  if (digits < -310) return value < 0 ? -0.0 : 0.0;
  if (digits >= 0) {
    double rounded = value;
    parse_float(fixed(value, static_cast<int>(digits)), rounded);
    return rounded;
  }
  const double unit = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / unit) * unit;
}

Value filter_round(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("do_round", args, {"precision", "method"});
  const std::string method = bound.has(1) && bound[1].is_string() ? bound[1].text() : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail(ErrorKind::kRuntime, "method must be common, ceil or floor");
  if (!self.is_number())
    fail_type("type " + std::string(type_name(self)) + " doesn't define __round__ method");
  const int64_t precision = bound.small(0, 0);
  if (method == "common") {
    if (self.is(Type::kFloat)) return Value::real(round_real(self.as_real(), precision));
    return Value::integer(round_integer(self.as_int(), precision));
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = self.as_real() * unit;
  if (!std::isfinite(scaled) || unit == 0) fail_value("the number is too large to round");
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Value filter_filesizeformat(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_filesizeformat", args, {"binary"});
  require_defined(self);
  double bytes = 0;
  if (self.is_number()) {
    bytes = self.as_real();
  } else if (!self.is_string() || !parse_float(self.text(), bytes)) {
    fail_value("could not convert to float: " + to_repr(in.budget(), self));
  }
  const bool binary = bound.flag(0);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return in.string("1 Byte");
  if (bytes < base) {
    Int whole = 0;
    truncate_real(bytes, whole);
    return in.string(int_to_string(whole) + " Bytes");
  }
  static constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0;; ++i) {
    unit *= base;
    if (bytes >= unit && i + 1 < kPrefixes.size()) continue;
    const std::string prefix(1, binary && i == 0 ? 'K' : kPrefixes[i]);
    return in.string(fixed(base * bytes / unit, 1) + " " + prefix + (binary ? "iB" : "B"));
  }
}

Value filter_default(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_default", args, {"default_value", "boolean"});
  if (!self.is_undefined() && !(bound.flag(1) && !is_true(self))) return self;
  return bound.has(0) ? bound[0] : in.string("");
}

constexpr Builtin kFilters[] = {
    {"abs", filter_abs},         {"d", filter_default},
    {"default", filter_default}, {"filesizeformat", filter_filesizeformat},
    {"float", filter_float},     {"int", filter_int},
    {"round", filter_round},
};

}  // namespace

std::span<const Builtin> number_filters() {
  return kFilters;
}

}  // namespace tessera::text::jinja
