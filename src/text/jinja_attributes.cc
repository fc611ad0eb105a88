// value.name and value[key], as the reference implementation's sandbox resolves them.
#include <algorithm>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

// "list object", "None": how error messages name a value.
std::string object_name(const Value& value) {
  if (value.is_none()) return "None";
  switch (value.type()) {
    case Type::kNamespace:
    case Type::kCycler:
    case Type::kJoiner:
      return "jinja2.utils." + std::string(type_name(value)) + " object";
    case Type::kMacro:
    case Type::kLoop:
      return "jinja2.runtime." + std::string(type_name(value)) + " object";
    case Type::kString:
      if (value.get<StringObject>().safe) return "markupsafe.Markup object";
      return "str object";
    default:
      return std::string(type_name(value)) + " object";
  }
}

Value missing_attribute(Interpreter& in, const Value& value, std::string_view name) {
  return in.undefined(string_repr(object_name(value)) + " has no attribute " + string_repr(name));
}

Value bound_function(Interpreter& in, const Value& self, std::string_view name, BuiltinFunction function) {
  auto callable = make_object<CallableObject>(in.budget(), name.size(), std::string(name),
                                              [self, function](Interpreter& interpreter, CallArgs& args) {
                                                return function(interpreter, self, args);
                                              });
  adopt(*callable, self);
  return Value(std::move(callable));
}

Value loop_cycle(Interpreter&, const Value& self, CallArgs& args) {
  if (args.positional.empty()) fail_type("no items for cycling given");
  return args.positional[self.get<LoopObject>().index0() % args.positional.size()];
}

Value loop_changed(Interpreter& in, const Value& self, CallArgs& args) {
  auto& loop = self.get<LoopObject>();
  Value now = make_tuple(in.budget(), args.positional);
  if (loop.last_changed.has_value()) {
    if (equals(in.budget(), *loop.last_changed, now)) return Value::boolean(false);
  } else {
    in.keep(self.object());
  }
  loop.last_changed = std::move(now);
  return Value::boolean(true);
}

bool loop_attribute(Interpreter& in, const Value& self, std::string_view name, Value& out) {
  auto& loop = self.get<LoopObject>();
  const auto number = [](auto n) { return Value::integer(static_cast<Int>(n)); };
  if (name == "index")
    out = number(loop.index0() + 1);
  else if (name == "index0")
    out = number(loop.index0());
  else if (name == "first")
    out = Value::boolean(loop.index0() == 0);
  else if (name == "last")
    out = Value::boolean(loop.is_last());
  else if (name == "length")
    out = number(loop.length());
  else if (name == "revindex")
    out = number(loop.length() - loop.index0());
  else if (name == "revindex0")
    out = number(loop.length() - loop.index0() - 1);
  else if (name == "depth")
    out = number(loop.depth0 + 1);
  else if (name == "depth0")
    out = number(loop.depth0);
  else if (name == "previtem")
    out = loop.previous() != nullptr ? *loop.previous() : in.undefined("there is no previous item");
  else if (name == "nextitem")
    out = loop.following() != nullptr ? *loop.following() : in.undefined("there is no next item");
  else if (name == "cycle")
    out = bound_function(in, self, name, loop_cycle);
  else if (name == "changed")
    out = bound_function(in, self, name, loop_changed);
  else
    return false;
  return true;
}

Value cycler_next(Interpreter&, const Value& self, CallArgs&) {
  auto& cycler = self.get<CyclerObject>();
  const Value item = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return item;
}
Value cycler_reset(Interpreter&, const Value& self, CallArgs&) {
  self.get<CyclerObject>().position = 0;
  return Value();
}

bool macro_attribute(Interpreter& in, const Value& self, std::string_view name, Value& out) {
  const Statement& statement = *self.get<MacroObject>().statement;
  if (name == "name") {
    out = statement.name.empty() ? Value() : in.string(statement.name);
  } else if (name == "arguments") {
    std::vector<Value> names;
    for (const Parameter& parameter : statement.parameters) names.push_back(in.string(parameter.name));
    out = make_tuple(in.budget(), std::move(names));
  } else if (name == "catch_kwargs") {
    out = Value::boolean(statement.uses_kwargs);
  } else if (name == "catch_varargs") {
    out = Value::boolean(statement.uses_varargs);
  } else if (name == "caller") {
    out = Value::boolean(statement.uses_caller);
  } else {
    return false;
  }
  return true;
}

// What Python's getattr would find on the value itself, but for methods.
bool own_attribute(Interpreter& in, const Value& self, std::string_view name, Value& out) {
  switch (self.type()) {
    case Type::kNamespace:
      for (const auto& [key, value] : self.get<NamespaceObject>().attributes) {
        if (key != name) continue;
        out = value;
        return true;
      }
      return false;
    case Type::kLoop:
      return loop_attribute(in, self, name, out);
    case Type::kMacro:
      return macro_attribute(in, self, name, out);
    case Type::kTuple: {
      const auto& tuple = self.get<SequenceObject>();
      if (!tuple.is_group || (name != "grouper" && name != "list")) return false;
      out = tuple.items[name == "list" ? 1 : 0];
      return true;
    }
    case Type::kRange: {
      const auto& range = self.get<RangeObject>();
      if (name != "start" && name != "stop" && name != "step") return false;
      out = Value::integer(name == "start" ? range.start : name == "stop" ? range.stop : range.step);
      return true;
    }
    case Type::kCycler:
      if (name == "current") {
        const auto& cycler = self.get<CyclerObject>();
        out = cycler.items[cycler.position];
      } else if (name == "next") {
        out = bound_function(in, self, name, cycler_next);
      } else if (name == "reset") {
        out = bound_function(in, self, name, cycler_reset);
      } else {
        return false;
      }
      return true;
    default:
      return false;
  }
}

// An attribute that Python's getattr finds: the value's own, a method, or one that the sandbox refuses.
bool find_attribute(Interpreter& in, const Value& self, std::string_view name, Value& out) {
  if (own_attribute(in, self, name, out)) return true;
  if (BuiltinFunction method = find_method(self, name)) {
    out = bound_function(in, self, name, method);
    return true;
  }
  if (!is_refused_attribute(self, name)) return false;
  out = make_undefined(in.budget(),
                       "access to attribute " + string_repr(name) + " of '" + std::string(type_name(self)) +
                           "' object is unsafe.",
                       ErrorKind::kSecurity);
  return true;
}

// value[key] where Python has it.
bool find_item(Interpreter& in, const Value& self, const Value& key, Value& out) {
  if (self.is(Type::kDict)) {
    if (key.is(Type::kList) || key.is(Type::kDict)) return false;
    const Value* found = dict_find(in.budget(), self.get<DictObject>(), key);
    if (found != nullptr) out = *found;
    return found != nullptr;
  }
  if (!key.is_integral()) return false;
  const bool has_index =
      self.is_string() || self.is(Type::kList) || self.is(Type::kTuple) || self.is(Type::kRange);
  size_t length = 0;
  if (!has_index || !length_of(self, length)) return false;
  Int index = key.as_int();
  if (index < 0) index += static_cast<Int>(length);
  if (index < 0 || index >= static_cast<Int>(length)) return false;
  const auto at = static_cast<size_t>(index);
  if (self.is(Type::kRange)) {
    const auto& range = self.get<RangeObject>();
    out = Value::integer(range.start + static_cast<Int>(at) * range.step);
  } else if (self.is_string()) {
    const auto& string = self.get<StringObject>();
    if (!string.is_ascii()) in.budget().tick(string.text.size() / 64);
    size_t begin = string.is_ascii() ? at : byte_offset(string.text, at);
    size_t end = begin;
    next_code_point(string.text, end);
    out = in.string(string.text.substr(begin, end - begin), string.safe);
  } else {
    out = self.get<SequenceObject>().items[at];
  }
  return true;
}

}  // namespace

Value Interpreter::attribute(const Value& value, std::string_view name) {
  if (value.is_undefined() && !is_refused_attribute(value, name)) fail_undefined(value);
  Value out;
  if (find_attribute(*this, value, name, out)) return out;
  if (value.is(Type::kDict)) {
    if (const Value* found = dict_find(budget_, value.get<DictObject>(), name)) return *found;
  }
  return missing_attribute(*this, value, name);
}

Value Interpreter::item(const Value& value, const Value& key) {
  require_defined(value);
  Value out;
  if (find_item(*this, value, key, out)) return out;
  if (key.is_string()) {
    if (find_attribute(*this, value, key.text(), out)) return out;
    return missing_attribute(*this, value, key.text());
  }
  return undefined(object_name(value) + " has no element " + to_repr(budget_, key));
}

bool is_refused_attribute(const Value& value, std::string_view name) {
  if (name.substr(0, 2) == "__" && name.size() > 4 && name.substr(name.size() - 2) == "__") {
    static constexpr std::string_view kEverywhere[] = {
        "__class__",        "__init__",         "__doc__",     "__dict__",    "__module__", "__eq__",
        "__hash__",         "__repr__",         "__str__",     "__dir__",     "__new__",    "__reduce__",
        "__getattribute__", "__subclasshook__", "__len__",     "__getitem__", "__iter__",   "__add__",
        "__call__",         "__globals__",      "__contains__"};
    return std::find(std::begin(kEverywhere), std::end(kEverywhere), name) != std::end(kEverywhere);
  }
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::string_view kList[] = {"append", "reverse", "insert", "sort",
                                               "extend", "remove",  "pop",    "clear"};
  const auto in_list = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return (value.is(Type::kDict) && in_list(kDict)) || (value.is(Type::kList) && in_list(kList));
}

}  // namespace tessera::text::jinja
