// Filters that order, cut and combine sequences.
#include <algorithm>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

std::vector<Value> keys_of(Budget& budget, const std::vector<Value>& items, const AttributeGetter& getter) {
  budget.require_room(items.size() * sizeof(Value));
  std::vector<Value> keys;
  for (const Value& item : items) keys.push_back(getter(item));
  return keys;
}

Value filter_length(Interpreter&, const Value& self, CallArgs& args) {
  const Bound bound("len", args, {});
  size_t length = 0;
  if (!length_of(self, length))
    fail_type("object of type '" + std::string(type_name(self)) + "' has no len()");
  return Value::integer(static_cast<Int>(length));
}

Value filter_first(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_first", args, {});
  ValueReader reader(in.budget(), self);
  Value item;
  return reader.next(item) ? item : in.undefined("No first item, sequence was empty.");
}

Value filter_last(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_last", args, {});
  if (self.is(Type::kIterator) || !is_iterable(self))
    fail_type(quoted_type(self) + " object is not reversible");
  const std::vector<Value> items = items_of(in.budget(), self);
  return items.empty() ? in.undefined("No last item, sequence was empty.") : items.back();
}

Value filter_list(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_list", args, {});
  return make_list(in.budget(), items_of(in.budget(), self));
}

Value filter_reverse(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_reverse", args, {});
  if (self.is_string()) return slice_of(in, self, Value(), Value(), Value::integer(-1));
  if (!is_iterable(self)) fail_type("argument must be iterable");
  std::vector<Value> items = items_of(in.budget(), self);
  std::reverse(items.begin(), items.end());
  if (self.is(Type::kIterator)) return make_list(in.budget(), std::move(items));
  return make_iterator(in.budget(), std::move(items),
                       self.is(Type::kList) ? "list_reverseiterator" : "reversed");
}

Value filter_join(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_join", args, {"d", "attribute"});
  const AttributeGetter getter(in, bound[1]);
  const std::string separator = bound.has(0) ? in.text_of(bound[0]) : "";
  TextBuffer out(in.budget());
  bool first = true;
  for (const Value& item : items_of(in.budget(), self)) {
    if (!first) out.append(separator);
    first = false;
    append_text(out, in.budget(), bound[1].is_none() ? item : getter(item));
  }
  return in.string(out.take());
}

Value filter_sort(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool ignore_case = !bound.flag(1);
  std::vector<AttributeGetter> getters;
  if (bound[2].is_string()) {
    const std::string& names = bound[2].text();
    for (size_t start = 0; start <= names.size();) {
      const size_t comma = std::min(names.find(',', start), names.size());
      getters.emplace_back(in, in.string(names.substr(start, comma - start)), ignore_case);
      start = comma + 1;
    }
  } else {
    getters.emplace_back(in, bound[2], ignore_case);
  }
  std::vector<Value> items = items_of(in.budget(), self);
  // Lists of keys even for a single one: parts that are equal (two undefined ones, say) then need no order.
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> parts;
    for (const AttributeGetter& getter : getters) parts.push_back(getter(item));
    keys.push_back(make_list(in.budget(), std::move(parts)));
  }
  return make_list(in.budget(), sort_by_keys(in, std::move(items), keys, bound.flag(0)));
}

Value filter_dictsort(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.has(1) && bound[1].is_string() ? bound[1].text() : "key";
  if (by != "key" && by != "value")
    fail(ErrorKind::kRuntime, "You can only sort by either \"key\" or \"value\"");
  require_defined(self);
  if (!self.is(Type::kDict)) fail_type(quoted_type(self) + " object has no attribute 'items'");
  const AttributeGetter folded(in, Value(), !bound.flag(0));
  std::vector<Value> pairs, keys;
  for (const auto& [key, value] : self.get<DictObject>().entries) {
    pairs.push_back(make_tuple(in.budget(), {key, value}));
    keys.push_back(folded(by == "key" ? key : value));
  }
  return make_list(in.budget(), sort_by_keys(in, std::move(pairs), keys, bound.flag(2)));
}

Value filter_items(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_items", args, {});
  std::vector<Value> pairs;
  if (!self.is_undefined()) {
    if (!self.is(Type::kDict)) fail_type("Can only get item pairs from a mapping.");
    for (const auto& [key, value] : self.get<DictObject>().entries)
      pairs.push_back(make_tuple(in.budget(), {key, value}));
  }
  return make_iterator(in.budget(), std::move(pairs));
}

Value filter_unique(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_unique", args, {"case_sensitive", "attribute"});
  const AttributeGetter getter(in, bound[1], !bound.flag(0));
  std::unordered_multimap<size_t, Value> seen;
  std::vector<Value> out;
  for (const Value& item : items_of(in.budget(), self)) {
    const Value key = getter(item);
    const size_t hash = hash_of(key);
    const auto [begin, end] = seen.equal_range(hash);
    const bool known =
        std::any_of(begin, end, [&](const auto& entry) { return equals(in.budget(), entry.second, key); });
    if (known) continue;
    seen.emplace(hash, key);
    out.push_back(item);
  }
  return make_iterator(in.budget(), std::move(out));
}

template <bool kMax>
Value filter_extreme(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kMax ? "do_max" : "do_min", args, {"case_sensitive", "attribute"});
  const std::vector<Value> items = items_of(in.budget(), self);
  if (items.empty()) return in.undefined("No aggregated item, sequence was empty.");
  const AttributeGetter getter(in, bound[1], !bound.flag(0));
  size_t best = 0;
  Value best_key = getter(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    const Value key = getter(items[i]);
    const int order = compare(in.budget(), key, best_key, kMax ? ">" : "<");
    if (kMax ? order <= 0 : order >= 0) continue;
    best = i;
    best_key = key;
  }
  return items[best];
}

Value filter_sum(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_sum", args, {"attribute", "start"});
  const AttributeGetter getter(in, bound[0]);
  Value sum = bound.has(1) ? bound[1] : Value::integer(0);
  if (sum.is_string()) fail_type("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : items_of(in.budget(), self))
    sum = binary_operation(in, BinaryOp::kAdd, sum, getter(item));
  return sum;
}

Value filter_batch(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_batch", args, {"linecount", "fill_with"}, 1);
  const Int size = require_int(bound[0]);
  std::vector<Value> batches, current;
  for (const Value& item : items_of(in.budget(), self)) {
    if (static_cast<Int>(current.size()) == size) {
      batches.push_back(make_list(in.budget(), std::move(current)));
      current.clear();
    }
    current.push_back(item);
  }
  if (!current.empty()) {
    if (!bound[1].is_none() && static_cast<Int>(current.size()) < size) {
      in.budget().require_room(static_cast<uint64_t>(clamp(std::min<Int>(size, Int{1} << 50))) *
                               sizeof(Value));
      current.resize(static_cast<size_t>(size), bound[1]);
    }
    batches.push_back(make_list(in.budget(), std::move(current)));
  }
  return make_iterator(in.budget(), std::move(batches));
}

Value filter_slice(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_slice", args, {"slices", "fill_with"}, 1);
  const int64_t slices = bound.small(0);
  const std::vector<Value> items = items_of(in.budget(), self);
  if (slices == 0) fail(ErrorKind::kZeroDivision, "integer division or modulo by zero");
  std::vector<Value> out;
  if (slices < 0) return make_iterator(in.budget(), std::move(out));
  const size_t base = items.size() / static_cast<size_t>(slices);
  const size_t extra = items.size() % static_cast<size_t>(slices);
  size_t start = 0;
  for (size_t i = 0; i < static_cast<size_t>(slices); ++i) {
    const size_t end = start + base + (i < extra ? 1 : 0);
    std::vector<Value> part(items.begin() + static_cast<ptrdiff_t>(start),
                            items.begin() + static_cast<ptrdiff_t>(end));
    if (!bound[1].is_none() && i >= extra) part.push_back(bound[1]);
    out.push_back(make_list(in.budget(), std::move(part)));
    start = end;
  }
  return make_iterator(in.budget(), std::move(out));
}

Value filter_groupby(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const AttributeGetter folded(in, bound[0], !bound.flag(2), bound[1]);
  const AttributeGetter exact(in, bound[0], false, bound[1]);
  std::vector<Value> items = items_of(in.budget(), self);
  const std::vector<Value> unsorted_keys = keys_of(in.budget(), items, folded);
  items = sort_by_keys(in, std::move(items), unsorted_keys, false);
  const std::vector<Value> keys = keys_of(in.budget(), items, folded);
  std::vector<Value> groups;
  for (size_t start = 0; start < items.size();) {
    size_t end = start + 1;
    while (end < items.size() && equals(in.budget(), keys[start], keys[end])) ++end;
    std::vector<Value> members(items.begin() + static_cast<ptrdiff_t>(start),
                               items.begin() + static_cast<ptrdiff_t>(end));
    const Value grouper = exact(members[0]);
    const Value group = make_tuple(in.budget(), {grouper, make_list(in.budget(), std::move(members))});
    group.get<SequenceObject>().is_group = true;
    groups.push_back(group);
    start = end;
  }
  return make_list(in.budget(), std::move(groups));
}

Value filter_random(Interpreter&, const Value&, CallArgs&) {
  fail(ErrorKind::kSecurity, "a chat template must not use random: equal chats must give equal prompts");
}

constexpr Builtin kFilters[] = {
    {"batch", filter_batch},   {"count", filter_length},      {"dictsort", filter_dictsort},
    {"first", filter_first},   {"groupby", filter_groupby},   {"items", filter_items},
    {"join", filter_join},     {"last", filter_last},         {"length", filter_length},
    {"list", filter_list},     {"max", filter_extreme<true>}, {"min", filter_extreme<false>},
    {"random", filter_random}, {"reverse", filter_reverse},   {"slice", filter_slice},
    {"sort", filter_sort},     {"sum", filter_sum},           {"unique", filter_unique},
};

}  // namespace

std::span<const Builtin> sequence_filters() {
  return kFilters;
}

}  // namespace tessera::text::jinja
