// Objects that run parts of the template: macros and the `loop` variable; the scopes that they close over.
#pragma once

#include <optional>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace tessera::text::jinja {

struct Scope {
  explicit Scope(std::shared_ptr<Scope> outer) : parent(std::move(outer)) {}
  // Names live in the parsed template or in the caller's variables: both outlive the rendering.
  Value* find(std::string_view name) {
    for (auto& [key, value] : variables)
      if (key == name) return &value;
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    if (Value* found = find(name)) {
      *found = std::move(value);
    } else {
      variables.emplace_back(name, std::move(value));
    }
  }

  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> variables;
  bool captured = false;  // a closure holds it: the interpreter empties it at the end
};

struct MacroObject final : Object {
  MacroObject(const Statement* s, std::shared_ptr<Scope> c)
      : Object(Type::kMacro), statement(s), closure(std::move(c)) {}
  const Statement* statement;
  std::shared_ptr<Scope> closure;
};

struct LoopObject final : Object {
  LoopObject(ValueReader items, std::function<bool(const Value&)> filter, int nesting)
      : Object(Type::kLoop), reader_(std::move(items)), accepts_(std::move(filter)), depth0(nesting) {
    adopt(*this, reader_.source());
  }

  // Moves to the next item; false at the end.
  bool advance();
  const Value& current() const { return current_; }
  size_t index0() const { return index0_; }
  size_t length();
  bool is_last() { return !peek().has_value(); }
  const Value* previous() const { return index0_ == 0 ? nullptr : &before_; }
  const Value* following() { return peek().has_value() ? &*after_ : nullptr; }

 private:
  bool pull(Value& item);
  const std::optional<Value>& peek();

  ValueReader reader_;
  std::function<bool(const Value&)> accepts_;  // null: all
  std::vector<Value> drained_;                 // items read ahead to know the length
  size_t drained_position_ = 0;
  bool is_drained_ = false;
  bool started_ = false;
  bool peeked_ = false;
  size_t index0_ = 0;
  Value before_, current_;
  std::optional<Value> after_;

 public:
  int depth0;                            // recursive loops: how many are around this one
  std::optional<Value> last_changed;     // of loop.changed()
  const Statement* recursion = nullptr;  // the statement that loop(items) runs again; null: not recursive
  std::shared_ptr<Scope> closure;        // of the recursion
};

}  // namespace tessera::text::jinja
