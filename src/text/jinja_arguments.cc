#include <algorithm>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {

Bound::Bound(std::string_view function, CallArgs& args, std::initializer_list<std::string_view> names,
             size_t required)
    : function_(function), values_(names.size()), present_(names.size(), false) {
  const std::string who = std::string(function) + "()";
  if (args.positional.size() > names.size())
    fail_type(who + " takes at most " + std::to_string(names.size()) + " arguments (" +
              std::to_string(args.positional.size()) + " given)");
  for (size_t i = 0; i < args.positional.size(); ++i) {
    values_[i] = args.positional[i];
    present_[i] = true;
  }
  for (const auto& [name, value] : args.named) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) fail_type(who + " got an unexpected keyword argument " + string_repr(name));
    const auto i = static_cast<size_t>(found - names.begin());
    if (present_[i]) fail_type(who + " got multiple values for argument " + string_repr(name));
    values_[i] = value;
    present_[i] = true;
  }
  for (size_t i = 0; i < required; ++i)
    if (!present_[i])
      fail_type(who + " missing 1 required positional argument: " + string_repr(*(names.begin() + i)));
}

Int require_int(const Value& value) {
  require_defined(value);
  if (!value.is_integral()) fail_type(quoted_type(value) + " object cannot be interpreted as an integer");
  return value.as_int();
}
int64_t clamp(Int value) {
  return static_cast<int64_t>(std::clamp<Int>(value, INT64_MIN, INT64_MAX));
}
Int Bound::integer(size_t i, Int otherwise) const {
  return present_[i] ? require_int(values_[i]) : otherwise;
}
int64_t Bound::small(size_t i, int64_t otherwise) const {
  return present_[i] ? clamp(require_int(values_[i])) : otherwise;
}

AttributeGetter::AttributeGetter(Interpreter& in, const Value& attribute, bool ignore_case,
                                 Value default_value)
    : in_(in), ignore_case_(ignore_case), default_(std::move(default_value)) {
  if (attribute.is_none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  const std::string& path = attribute.text();
  for (size_t start = 0; start <= path.size();) {
    const size_t dot = std::min(path.find('.', start), path.size());
    const std::string part = path.substr(start, dot - start);
    Int number = 0;
    const bool is_number = !part.empty() && part.find_first_not_of("0123456789") == part.npos;
    parts_.push_back(is_number && parse_int(part, 10, number) ? Value::integer(number) : in.string(part));
    start = dot + 1;
  }
}

Value AttributeGetter::operator()(const Value& item) const {
  Value value = item;
  for (const Value& part : parts_) {
    value = in_.item(value, part);
    if (value.is_undefined() && !default_.is_none()) value = default_;
  }
  if (ignore_case_ && value.is_string()) return in_.string(to_lower(value.text()));
  return value;
}

std::vector<Value> sort_by_keys(Interpreter& in, std::vector<Value> items, const std::vector<Value>& keys,
                                bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // A merge sort: it neither needs a consistent order nor reads out of bounds without one.
  std::vector<size_t> merged(order.size());
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t start = 0; start < order.size(); start += 2 * width) {
      const size_t middle = std::min(start + width, order.size());
      const size_t end = std::min(start + 2 * width, order.size());
      size_t left = start;
      size_t right = middle;
      for (size_t out = start; out < end; ++out) {
        bool take_right = left == middle;
        if (!take_right && right < end) {
          const Value& a = keys[order[left]];
          const Value& b = keys[order[right]];
          take_right = reverse ? compare(in.budget(), a, b) < 0 : compare(in.budget(), b, a) < 0;
        }
        merged[out] = order[take_right ? right++ : left++];
      }
    }
    order.swap(merged);
  }
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (size_t i : order) sorted.push_back(std::move(items[i]));
  return sorted;
}

}  // namespace tessera::text::jinja
