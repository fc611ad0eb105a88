#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "text/jinja_macro.h"

namespace tessera::text::jinja {

const std::string& Value::text() const {
  return get<StringObject>().text;
}

bool Value::same_as(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (data_.index() == 4 && is_string() && other.is_string()) return text() == other.text();
  return data_ == other.data_;
}

void adopt(Object& object, const Value& inner) {
  if (inner.is_none() || inner.is_number()) return;
  object.depth = std::max(object.depth, inner.object()->depth + 1);
  const int limit = object.budget == nullptr ? TemplateLimits().max_depth : object.budget->limits().max_depth;
  if (object.depth > limit) fail(ErrorKind::kLimit, "values are nested deeper than " + std::to_string(limit));
}

Value constant_string(std::string text) {
  return Value(std::make_shared<StringObject>(std::move(text), false));
}
Value make_string(Budget& budget, std::string text, bool safe) {
  const size_t bytes = text.capacity();
  return Value(make_object<StringObject>(budget, bytes, std::move(text), safe));
}
Value make_undefined(Budget& budget, std::string message, ErrorKind kind) {
  const size_t bytes = message.size();
  return Value(make_object<UndefinedObject>(budget, bytes, std::move(message), kind));
}

namespace {

Value make_sequence(Budget& budget, Type type, std::vector<Value> items, const char* name) {
  budget.tick(items.size());
  const size_t bytes = items.capacity() * sizeof(Value);
  auto sequence = make_object<SequenceObject>(budget, bytes, type, std::move(items), name);
  for (const Value& item : sequence->items) adopt(*sequence, item);
  return Value(std::move(sequence));
}

}  // namespace

Value make_list(Budget& budget, std::vector<Value> items) {
  return make_sequence(budget, Type::kList, std::move(items), "list");
}
Value make_tuple(Budget& budget, std::vector<Value> items) {
  return make_sequence(budget, Type::kTuple, std::move(items), "tuple");
}
Value make_view(Budget& budget, std::vector<Value> items, const char* name) {
  return make_sequence(budget, Type::kView, std::move(items), name);
}
Value make_iterator(Budget& budget, std::vector<Value> items, const char* name) {
  return make_sequence(budget, Type::kIterator, std::move(items), name);
}

namespace {

template <typename SameKey>
const std::pair<Value, Value>* find_entry(const DictObject& dict, size_t hash, const SameKey& same_key) {
  if (dict.positions.empty()) {
    for (const auto& entry : dict.entries)
      if (same_key(entry.first)) return &entry;
    return nullptr;
  }
  const auto [begin, end] = dict.positions.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (same_key(dict.entries[it->second].first)) return &dict.entries[it->second];
  return nullptr;
}

size_t hash_text(std::string_view text) {
  return std::hash<std::string_view>()(text);
}

}  // namespace

const Value* dict_find(Budget& budget, const DictObject& dict, std::string_view key) {
  const auto* entry = find_entry(dict, hash_text(key), [&](const Value& candidate) {
    budget.tick();
    return candidate.is_string() && candidate.text() == key;
  });
  return entry == nullptr ? nullptr : &entry->second;
}
const Value* dict_find(Budget& budget, const DictObject& dict, const Value& key) {
  const auto* entry =
      find_entry(dict, hash_of(key), [&](const Value& candidate) { return equals(budget, candidate, key); });
  return entry == nullptr ? nullptr : &entry->second;
}

void DictBuilder::set(Value key, Value value) {
  adopt(*dict_, key);
  adopt(*dict_, value);
  const size_t hash = hash_of(key);
  const auto* found =
      find_entry(*dict_, hash, [&](const Value& candidate) { return equals(budget_, candidate, key); });
  if (found != nullptr) {
    dict_->entries[static_cast<size_t>(found - dict_->entries.data())].second = std::move(value);
    return;
  }
  constexpr uint64_t kBytesPerEntry = sizeof(std::pair<Value, Value>) * 2 + 48;
  budget_.allocate(kBytesPerEntry);
  dict_->charged += kBytesPerEntry;
  dict_->entries.emplace_back(std::move(key), std::move(value));
  const size_t count = dict_->entries.size();
  if (count == DictObject::kIndexedFrom) {
    for (uint32_t i = 0; i < count; ++i) dict_->positions.emplace(hash_of(dict_->entries[i].first), i);
  } else if (count > DictObject::kIndexedFrom) {
    dict_->positions.emplace(hash, static_cast<uint32_t>(count - 1));
  }
}

std::string_view type_name(const Value& value) {
  switch (value.type()) {
    case Type::kNone:
      return "NoneType";
    case Type::kBool:
      return "bool";
    case Type::kInt:
      return "int";
    case Type::kFloat:
      return "float";
    case Type::kUndefined:
      return "Undefined";
    case Type::kString:
      return value.get<StringObject>().safe ? "Markup" : "str";
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
    case Type::kIterator:
      return value.get<SequenceObject>().name;
    case Type::kRange:
      return "range";
    case Type::kDict:
      return "dict";
    case Type::kNamespace:
      return "Namespace";
    case Type::kCallable:
      return "builtin_function_or_method";
    case Type::kMacro:
      return "Macro";
    case Type::kLoop:
      return "LoopContext";
    case Type::kCycler:
      return "Cycler";
    case Type::kJoiner:
      return "Joiner";
  }
  return "object";
}

std::string quoted_type(const Value& value) {
  std::string quoted(1, '\'');
  quoted += type_name(value);
  quoted += '\'';
  return quoted;
}

bool length_of(const Value& value, size_t& length) {
  switch (value.type()) {
    case Type::kUndefined:
      length = 0;
      return true;
    case Type::kString:
      length = value.get<StringObject>().length;
      return true;
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
      length = value.get<SequenceObject>().items.size();
      return true;
    case Type::kRange:
      length = value.get<RangeObject>().size;
      return true;
    case Type::kDict:
      length = value.get<DictObject>().entries.size();
      return true;
    case Type::kLoop:
      length = value.get<LoopObject>().length();
      return true;
    default:
      return false;
  }
}

bool is_true(const Value& value) {
  size_t length = 0;
  switch (value.type()) {
    case Type::kNone:
      return false;
    case Type::kBool:
    case Type::kInt:
      return value.as_int() != 0;
    case Type::kFloat:
      return value.as_real() != 0;
    default:
      return !length_of(value, length) || length > 0;
  }
}

namespace {

bool sequences_equal(Budget& budget, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!equals(budget, a[i], b[i])) return false;
  return true;
}

bool dicts_equal(Budget& budget, const DictObject& a, const DictObject& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = dict_find(budget, b, key);
    if (other == nullptr || !equals(budget, value, *other)) return false;
  }
  return true;
}

bool numbers_equal(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  if (!a.is_integral() && !b.is_integral()) return a.as_real() == b.as_real();
  const Value& whole = a.is_integral() ? a : b;
  const double real = a.is_integral() ? b.as_real() : a.as_real();
  return std::abs(real) < 1e38 && real == std::floor(real) && static_cast<Int>(real) == whole.as_int();
}

}  // namespace

bool equals(Budget& budget, const Value& a, const Value& b) {
  budget.tick();
  if (a.is_number() && b.is_number()) return numbers_equal(a, b);
  if (a.type() != b.type()) return false;
  switch (a.type()) {
    case Type::kNone:
    case Type::kUndefined:
      return true;
    case Type::kString:
      budget.tick(a.text().size() / 256);
      return a.text() == b.text();
    case Type::kList:
    case Type::kTuple:
      if (a.object() == b.object()) return true;
      return sequences_equal(budget, a.get<SequenceObject>().items, b.get<SequenceObject>().items);
    case Type::kDict:
      if (a.object() == b.object()) return true;
      return dicts_equal(budget, a.get<DictObject>(), b.get<DictObject>());
    case Type::kRange: {
      const auto& x = a.get<RangeObject>();
      const auto& y = b.get<RangeObject>();
      return x.size == y.size && (x.size == 0 || (x.start == y.start && (x.size == 1 || x.step == y.step)));
    }
    default:
      return a.object() == b.object();
  }
}

size_t hash_of(const Value& value) {
  switch (value.type()) {
    case Type::kNone:
      return 0x6e6f6e65;
    case Type::kBool:
    case Type::kInt:
      return std::hash<int64_t>()(static_cast<int64_t>(value.as_int()));
    case Type::kFloat: {
      const double real = value.as_real();
      if (real == std::floor(real) && std::abs(real) < 9e18)
        return std::hash<int64_t>()(static_cast<int64_t>(real));
      return std::hash<double>()(real);
    }
    case Type::kString:
      return hash_text(value.text());
    case Type::kTuple: {
      size_t hash = 0x7475706c;
      const auto& tuple = value.get<SequenceObject>();
      if (tuple.budget != nullptr) tuple.budget->tick(tuple.items.size());
      for (const Value& item : tuple.items) hash = hash * 1000003 + hash_of(item);
      return hash;
    }
    case Type::kUndefined:
      return 0x756e6465;
    case Type::kList:
    case Type::kDict:
      fail_type("unhashable type: '" + std::string(type_name(value)) + "'");
    default:
      return std::hash<const void*>()(value.object().get());
  }
}

int compare(Budget& budget, const Value& a, const Value& b, std::string_view op) {
  budget.tick();
  if (a.is_integral() && b.is_integral()) return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
  if (a.is_number() && b.is_number()) {
    const long double x = a.is_integral() ? static_cast<long double>(a.as_int()) : a.as_real();
    const long double y = b.is_integral() ? static_cast<long double>(b.as_int()) : b.as_real();
    return x < y ? -1 : x > y;
  }
  if (a.is_string() && b.is_string()) {
    budget.tick(std::min(a.text().size(), b.text().size()) / 256);
    const int order = a.text().compare(b.text());  // UTF-8 sorts as its code points do
    return order < 0 ? -1 : order > 0;
  }
  if (a.type() == b.type() && (a.is(Type::kList) || a.is(Type::kTuple))) {
    const auto& x = a.get<SequenceObject>().items;
    const auto& y = b.get<SequenceObject>().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equals(budget, x[i], y[i])) return compare(budget, x[i], y[i], op);
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  for (const Value* value : {&a, &b})
    if (value->is_undefined())
      fail(value->get<UndefinedObject>().kind, value->get<UndefinedObject>().message);
  std::string message = string_repr(op);
  message += " not supported between instances of " + quoted_type(a) + " and " + quoted_type(b);
  fail_type(std::move(message));
}

bool is_iterable(const Value& value) {
  switch (value.type()) {
    case Type::kUndefined:
    case Type::kString:
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
    case Type::kIterator:
    case Type::kRange:
    case Type::kDict:
      return true;
    default:
      return false;
  }
}

ValueReader::ValueReader(Budget& budget, Value source) : budget_(&budget), source_(std::move(source)) {
  if (!is_iterable(source_)) fail_type(quoted_type(source_) + " object is not iterable");
}

bool ValueReader::next(Value& item) {
  budget_->tick();
  switch (source_.type()) {
    case Type::kString: {
      const std::string& text = source_.text();
      if (position_ >= text.size()) return false;
      const size_t start = position_;
      next_code_point(text, position_);
      item = make_string(*budget_, text.substr(start, position_ - start));
      return true;
    }
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
    case Type::kIterator: {
      auto& sequence = source_.get<SequenceObject>();
      size_t& position = source_.is(Type::kIterator) ? sequence.position : position_;
      if (position >= sequence.items.size()) return false;
      item = sequence.items[position++];
      return true;
    }
    case Type::kRange: {
      const auto& range = source_.get<RangeObject>();
      if (position_ >= range.size) return false;
      item = Value::integer(range.start + static_cast<Int>(position_++) * range.step);
      return true;
    }
    case Type::kDict: {
      const auto& entries = source_.get<DictObject>().entries;
      if (position_ >= entries.size()) return false;
      item = entries[position_++].first;
      return true;
    }
    default:
      return false;
  }
}

std::vector<Value> items_of(Budget& budget, const Value& iterable) {
  ValueReader reader(budget, iterable);
  size_t length = 0;
  if (length_of(iterable, length)) budget.require_room(length * sizeof(Value));
  std::vector<Value> items;
  items.reserve(length);
  for (Value item; reader.next(item);) items.push_back(std::move(item));
  return items;
}

}  // namespace tessera::text::jinja
