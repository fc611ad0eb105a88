// Filters that run another filter or test on every item.
#include <algorithm>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

Value take_first(CallArgs& args) {
  Value first = std::move(args.positional.front());
  args.positional.erase(args.positional.begin());
  return first;
}

std::string callable_name(const char* kind, Interpreter& in, const Value& name) {
  if (!name.is_string())
    fail(ErrorKind::kRuntime, std::string("No ") + kind + " named " + to_repr(in.budget(), name) + ".");
  return name.text();
}

Value filter_map(Interpreter& in, const Value& self, CallArgs& args) {
  std::vector<Value> out;
  if (!is_true(self)) return make_iterator(in.budget(), std::move(out));
  const bool by_attribute = args.positional.empty() && !args.named.empty() &&
                            std::any_of(args.named.begin(), args.named.end(),
                                        [](const auto& entry) { return entry.first == "attribute"; });
  if (by_attribute) {
    const Bound bound("map", args, {"attribute", "default"});
    const AttributeGetter getter(in, bound[0], false, bound[1]);
    for (const Value& item : items_of(in.budget(), self)) out.push_back(getter(item));
    return make_iterator(in.budget(), std::move(out));
  }
  if (args.positional.empty()) fail(ErrorKind::kRuntime, "map requires a filter argument");
  const std::string name = callable_name("filter", in, take_first(args));
  for (const Value& item : items_of(in.budget(), self)) {
    CallArgs item_args = args;
    out.push_back(in.filter(name, item, item_args));
  }
  return make_iterator(in.budget(), std::move(out));
}

template <bool kKeep, bool kByAttribute>
Value filter_select(Interpreter& in, const Value& self, CallArgs& args) {
  std::vector<Value> out;
  if (!is_true(self)) return make_iterator(in.budget(), std::move(out));
  Value attribute;
  if (kByAttribute) {
    if (args.positional.empty()) fail(ErrorKind::kRuntime, "Missing parameter for attribute name");
    attribute = take_first(args);
  }
  const AttributeGetter getter(in, attribute);
  const bool has_test = !args.positional.empty();
  const std::string name = has_test ? callable_name("test", in, take_first(args)) : "";
  for (const Value& item : items_of(in.budget(), self)) {
    const Value value = getter(item);
    CallArgs item_args = args;
    const bool passes = has_test ? in.test(name, value, item_args) : is_true(value);
    if (passes == kKeep) out.push_back(item);
  }
  return make_iterator(in.budget(), std::move(out));
}

Value filter_attr(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_attr", args, {"name"}, 1);
  if (!bound[0].is_string())
    fail_type("attribute name must be string, not '" + std::string(type_name(bound[0])) + "'");
  // Attributes only: a dict's items do not count.
  if (self.is(Type::kDict) && find_method(self, bound[0].text()) == nullptr &&
      !is_refused_attribute(self, bound[0].text()))
    return in.undefined("'dict object' has no attribute " + string_repr(bound[0].text()));
  return in.attribute(self, bound[0].text());
}

constexpr Builtin kFilters[] = {
    {"attr", filter_attr},
    {"map", filter_map},
    {"reject", filter_select<false, false>},
    {"rejectattr", filter_select<false, true>},
    {"select", filter_select<true, false>},
    {"selectattr", filter_select<true, true>},
};

}  // namespace

std::span<const Builtin> selection_filters() {
  return kFilters;
}

}  // namespace tessera::text::jinja
