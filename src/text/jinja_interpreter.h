// Evaluates a parsed template once. Single-threaded; throws TemplateError.
#pragma once

#include "base/clock.h"
#include "base/json.h"
#include "text/jinja_macro.h"
#include "text/jinja_parser.h"

namespace tessera::text::jinja {

class Interpreter {
 public:
  // `variables` (an object), `budget` and `clock` outlive the interpreter.
  Interpreter(Budget& budget, const OrderedJson& variables, const Clock& clock);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  std::string render(const ParsedTemplate& parsed);

  // --- for filters, tests, methods and globals ---
  Budget& budget() { return budget_; }
  const Clock& clock() const { return clock_; }
  Value string(std::string text, bool safe = false) { return make_string(budget_, std::move(text), safe); }
  std::string text_of(const Value& value) { return to_text(budget_, value); }
  Value undefined(std::string message) { return make_undefined(budget_, std::move(message)); }
  Value call(const Value& callee, CallArgs& args);
  // value.name: methods and the like first, then items. value[key]: items first.
  Value attribute(const Value& value, std::string_view name);
  Value item(const Value& value, const Value& key);
  Value filter(std::string_view name, const Value& input, CallArgs& args);
  bool test(std::string_view name, const Value& input, CallArgs& args);
  Value new_namespace();
  // Keeps `value` and empties it at the end, so that values that hold each other are freed.
  void keep(std::shared_ptr<Object> value);

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;
  class Frame;
  class Capture;

  Flow run(const Body& body, const ScopePtr& scope);
  Flow run(const Statement& statement, const ScopePtr& scope);
  Flow run_if(const Statement& statement, const ScopePtr& scope);
  void run_output(const Statement& statement, const ScopePtr& scope);
  void run_for(const Statement& statement, const ScopePtr& scope);
  void run_loop(const Statement& statement, const ScopePtr& scope, const Value& items, int depth0);
  void run_plain_loop(const Statement& statement, const ScopePtr& scope, ValueReader reader,
                      const std::function<bool(const Value&)>& accepts);
  void run_set(const Statement& statement, const ScopePtr& scope);
  Flow run_captured(const Body& body, const ScopePtr& scope, Value& text);
  Flow run_set_block(const Statement& statement, const ScopePtr& scope);
  Flow run_with(const Statement& statement, const ScopePtr& scope);
  Flow run_filter_block(const Statement& statement, const ScopePtr& scope);
  void run_call_block(const Statement& statement, const ScopePtr& scope);
  void assign(const Expr& target, const Value& value, const ScopePtr& scope);

  Value eval(const Expr& expr, const ScopePtr& scope);
  Value eval_name(const Expr& expr, const ScopePtr& scope);
  Value eval_dict(const Expr& expr, const ScopePtr& scope);
  Value eval_item(const Expr& expr, const ScopePtr& scope);
  Value eval_call(const Expr& expr, const ScopePtr& scope, const Value* caller = nullptr);
  Value eval_filter(const Expr& expr, const ScopePtr& scope, const Value* block_text = nullptr);
  bool eval_test(const Expr& expr, const ScopePtr& scope);
  Value eval_compare(const Expr& expr, const ScopePtr& scope);
  Value eval_concat(const Expr& expr, const ScopePtr& scope);
  Value eval_sign(const Expr& expr, const ScopePtr& scope);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& items, const ScopePtr& scope);
  CallArgs eval_arguments(const Arguments& arguments, const ScopePtr& scope);

  Value lookup(std::string_view name, const ScopePtr& scope);
  Value call_macro(const Value& callee, CallArgs& args);
  void bind_parameters(const MacroObject& macro, CallArgs& args, const ScopePtr& scope);
  Value call_recursive_loop(const Value& callee, CallArgs& args);
  Value make_macro(const Statement& statement, const ScopePtr& scope);
  void capture(const ScopePtr& scope);
  void write(const Value& value);

  Budget& budget_;
  const OrderedJson& variables_;
  const Clock& clock_;
  ScopePtr root_;
  TextBuffer* out_ = nullptr;
  int frames_ = 0;  // evaluation frames on the native stack
  int calls_ = 0;   // macro calls and loop recursions under way
  std::vector<ScopePtr> captured_scopes_;
  std::vector<std::shared_ptr<Object>> kept_;
};

// JSON as template values. Numbers that Python would keep as int stay int.
Value value_of_json(Budget& budget, const OrderedJson& json, int depth = 0);

}  // namespace tessera::text::jinja
