// Methods of dicts, lists, tuples; the lookup over all types.
#include <algorithm>
#include <map>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

Value dict_get(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("get", args, {"key", "default"}, 1);
  const Value* found = dict_find(in.budget(), self.get<DictObject>(), bound[0]);
  return found != nullptr ? *found : bound[1];
}

Value dict_keys(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("keys", args, {});
  return make_view(in.budget(), items_of(in.budget(), self), "dict_keys");
}

Value dict_values(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("values", args, {});
  std::vector<Value> values;
  for (const auto& entry : self.get<DictObject>().entries) values.push_back(entry.second);
  return make_view(in.budget(), std::move(values), "dict_values");
}

Value dict_items(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("items", args, {});
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.get<DictObject>().entries)
    pairs.push_back(make_tuple(in.budget(), {key, value}));
  return make_view(in.budget(), std::move(pairs), "dict_items");
}

// Containers never change, so a copy is the value itself.
Value copy(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("copy", args, {});
  return self;
}

Value list_copy(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("copy", args, {});
  return make_list(in.budget(), items_of(in.budget(), self));
}

Value sequence_index(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("index", args, {"value", "start", "stop"}, 1);
  const auto& items = self.get<SequenceObject>().items;
  const auto size = static_cast<int64_t>(items.size());
  const auto place = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size); };
  for (int64_t i = place(bound.small(1, 0)); i < place(bound.small(2, size)); ++i)
    if (equals(in.budget(), items[static_cast<size_t>(i)], bound[0])) return Value::integer(i);
  fail_value(self.is(Type::kTuple) ? "tuple.index(x): x not in tuple"
                                   : to_repr(in.budget(), bound[0]) + " is not in list");
}

Value sequence_count(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("count", args, {"value"}, 1);
  Int count = 0;
  for (const Value& item : self.get<SequenceObject>().items) count += equals(in.budget(), item, bound[0]);
  return Value::integer(count);
}

constexpr Builtin kDictMethods[] = {
    {"copy", copy}, {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}};
constexpr Builtin kListMethods[] = {
    {"copy", list_copy}, {"count", sequence_count}, {"index", sequence_index}};
constexpr Builtin kTupleMethods[] = {{"count", sequence_count}, {"index", sequence_index}};

BuiltinFunction find_in(std::span<const Builtin> table, std::string_view name) {
  for (const Builtin& entry : table)
    if (entry.name == name) return entry.function;
  return nullptr;
}

using Table = std::map<std::string_view, BuiltinFunction>;
Table make_table(std::initializer_list<std::span<const Builtin>> parts) {
  Table table;
  for (const auto& part : parts)
    for (const Builtin& entry : part) table.emplace(entry.name, entry.function);
  return table;
}

BuiltinFunction find_in(const Table& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace

BuiltinFunction find_method(const Value& value, std::string_view name) {
  static const Table string_table = make_table({string_methods(), string_search_methods()});
  switch (value.type()) {
    case Type::kString:
      return find_in(string_table, name);
    case Type::kDict:
      return find_in(kDictMethods, name);
    case Type::kList:
      return find_in(kListMethods, name);
    case Type::kTuple:
      return find_in(kTupleMethods, name);
    default:
      return nullptr;
  }
}

BuiltinFunction find_filter(std::string_view name) {
  static const Table table = make_table(
      {text_filters(), markup_filters(), number_filters(), sequence_filters(), selection_filters()});
  return find_in(table, name);
}

}  // namespace tessera::text::jinja
