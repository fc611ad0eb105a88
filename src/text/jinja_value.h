// Values of the template language. Scalars are held inline, everything else is shared. Text and containers
// never change once made; namespaces, loops, cyclers and joiners do.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja_budget.h"
#include "text/jinja_unicode.h"

namespace tessera::text::jinja {

class Interpreter;

enum class Type {
  kNone,
  kBool,
  kInt,
  kFloat,
  kUndefined,
  kString,
  kList,
  kTuple,
  kView,      // dict.keys(), .values(), .items(): like a list, but without index
  kIterator,  // what map, select and the like give: can be read once
  kRange,
  kDict,
  kNamespace,
  kCallable,
  kMacro,
  kLoop,
  kCycler,
  kJoiner,
};

struct Object {
  explicit Object(Type object_type) : type(object_type) {}
  virtual ~Object() {
    if (budget != nullptr) budget->release(charged);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  Type type;
  int depth = 1;             // of containers inside each other: bounds every recursion over values
  Budget* budget = nullptr;  // null: a constant of the template
  uint64_t charged = 0;
};

class Value {
 public:
  Value() = default;  // None
  static Value boolean(bool value) { return Value(value); }
  static Value integer(Int value) { return Value(value); }
  static Value real(double value) { return Value(value); }
  explicit Value(std::shared_ptr<Object> object) : data_(std::move(object)) {}

  Type type() const {
    return data_.index() == 4 ? std::get<4>(data_)->type : static_cast<Type>(data_.index());
  }
  bool is(Type t) const { return type() == t; }
  bool is_none() const { return data_.index() == 0; }
  bool is_undefined() const { return is(Type::kUndefined); }
  bool is_string() const { return is(Type::kString); }
  bool is_integral() const { return data_.index() == 1 || data_.index() == 2; }  // Python: bool is an int
  bool is_number() const { return is_integral() || data_.index() == 3; }

  bool as_bool() const { return std::get<bool>(data_); }
  Int as_int() const { return data_.index() == 1 ? Int{std::get<bool>(data_)} : std::get<Int>(data_); }
  double as_real() const {
    return data_.index() == 3 ? std::get<double>(data_) : static_cast<double>(as_int());
  }
  const std::string& text() const;  // of a string
  const std::shared_ptr<Object>& object() const { return std::get<4>(data_); }
  template <typename T>
  T& get() const {  // the caller has looked at type()
    return static_cast<T&>(*std::get<4>(data_));
  }
  // The very same object, or equal scalars: Python's `is` as far as templates can tell.
  bool same_as(const Value& other) const;

 private:
  using Data = std::variant<std::monostate, bool, Int, double, std::shared_ptr<Object>>;
  explicit Value(bool value) : data_(value) {}
  explicit Value(Int value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  Data data_;
};

struct StringObject final : Object {
  StringObject(std::string t, bool is_safe)
      : Object(Type::kString), text(std::move(t)), length(count_code_points(text)), safe(is_safe) {}
  bool is_ascii() const { return length == text.size(); }
  std::string text;  // valid UTF-8
  size_t length;     // code points
  bool safe;         // marked as escaped HTML (filters safe and escape)
};

struct UndefinedObject final : Object {
  explicit UndefinedObject(std::string m, ErrorKind k)
      : Object(Type::kUndefined), message(std::move(m)), kind(k) {}
  std::string message;  // of the error that any use but printing and testing raises
  ErrorKind kind;
};

struct SequenceObject final : Object {  // kList, kTuple, kView, kIterator
  SequenceObject(Type t, std::vector<Value> values, const char* python_name)
      : Object(t), items(std::move(values)), name(python_name) {}
  std::vector<Value> items;
  const char* name;       // "list", "dict_items", "generator", ...
  size_t position = 0;    // kIterator: the next item
  bool is_group = false;  // a tuple of the groupby filter: has .grouper and .list
};

struct RangeObject final : Object {
  RangeObject(Int first, Int end, Int by, size_t count)
      : Object(Type::kRange), start(first), stop(end), step(by), size(count) {}
  Int start, stop, step;
  size_t size;
};

struct DictObject final : Object {
  DictObject() : Object(Type::kDict) {}
  std::vector<std::pair<Value, Value>> entries;         // in order of insertion
  std::unordered_multimap<size_t, uint32_t> positions;  // by hash; filled from kIndexedFrom entries on
  static constexpr size_t kIndexedFrom = 9;
};

struct NamespaceObject final : Object {
  NamespaceObject() : Object(Type::kNamespace) {}
  std::vector<std::pair<std::string, Value>> attributes;
};

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct CallableObject final : Object {
  using Function = std::function<Value(Interpreter&, CallArgs&)>;
  CallableObject(std::string n, Function f)
      : Object(Type::kCallable), name(std::move(n)), function(std::move(f)) {}
  std::string name;
  Function function;
};

struct CyclerObject final : Object {
  CyclerObject() : Object(Type::kCycler) {}
  std::vector<Value> items;  // never empty
  size_t position = 0;
};

struct JoinerObject final : Object {
  JoinerObject() : Object(Type::kJoiner) {}
  Value separator;
  bool used = false;
};

// --- making values; all charge the budget and throw when it is spent
// -----------------------------------------

template <typename T, typename... A>
std::shared_ptr<T> make_object(Budget& budget, uint64_t extra_bytes, A&&... arguments) {
  const uint64_t bytes = sizeof(T) + 32 + extra_bytes;
  budget.allocate(bytes);
  std::shared_ptr<T> object;
  try {
    object = std::make_shared<T>(std::forward<A>(arguments)...);
  } catch (...) {
    budget.release(bytes);
    throw;
  }
  object->budget = &budget;
  object->charged = bytes;
  return object;
}

Value constant_string(std::string text);  // for the parsed template; charges nothing
Value make_string(Budget& budget, std::string text, bool safe = false);
Value make_undefined(Budget& budget, std::string message, ErrorKind kind = ErrorKind::kUndefined);
Value make_list(Budget& budget, std::vector<Value> items);
Value make_tuple(Budget& budget, std::vector<Value> items);
Value make_view(Budget& budget, std::vector<Value> items, const char* name);
Value make_iterator(Budget& budget, std::vector<Value> items, const char* name = "generator");
// Raises `object`'s depth above that of `inner`; throws when too deep. For every value stored inside another.
void adopt(Object& object, const Value& inner);

// Builds a dict; a repeated key keeps its place and takes the new value.
class DictBuilder {
 public:
  explicit DictBuilder(Budget& budget) : budget_(budget), dict_(make_object<DictObject>(budget, 0)) {}
  void set(Value key, Value value);
  Value take() { return Value(std::move(dict_)); }

 private:
  Budget& budget_;
  std::shared_ptr<DictObject> dict_;
};

// Null when absent. Throws for a key that has no hash (a list, a dict).
const Value* dict_find(Budget& budget, const DictObject& dict, const Value& key);
const Value* dict_find(Budget& budget, const DictObject& dict, std::string_view key);

// --- reading values
// ---------------------------------------------------------------------------------------------

std::string_view type_name(const Value& value);  // Python's type(x).__name__
std::string quoted_type(const Value& value);     // the same in quotes, for messages
bool is_true(const Value& value);
bool equals(Budget& budget, const Value& a, const Value& b);
size_t hash_of(const Value& value);  // throws for what has none
// Negative, zero or positive. Throws a type error that names `op` where Python has no order.
int compare(Budget& budget, const Value& a, const Value& b, std::string_view op = "<");

// Python's str() and repr().
void append_text(TextBuffer& out, Budget& budget, const Value& value);
void append_repr(TextBuffer& out, Budget& budget, const Value& value, int depth = 0);
std::string to_text(Budget& budget, const Value& value);
std::string to_repr(Budget& budget, const Value& value);

// Number of items where Python has len(); false otherwise.
bool length_of(const Value& value, size_t& length);

// Reads the items of an iterable one by one.
class ValueReader {
 public:
  // Throws a type error for what cannot be iterated.
  ValueReader(Budget& budget, Value source);
  bool next(Value& item);
  const Value& source() const { return source_; }

 private:
  Budget* budget_;
  Value source_;
  size_t position_ = 0;  // items, or bytes of a string
};
bool is_iterable(const Value& value);
std::vector<Value> items_of(Budget& budget, const Value& iterable);

}  // namespace tessera::text::jinja
