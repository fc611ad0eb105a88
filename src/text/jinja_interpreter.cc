#include "text/jinja_interpreter.h"

#include <nlohmann/json.hpp>

#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

// Bounds the native stack: each level of evaluation takes well under 2 KiB of it.
constexpr int kMaxFrames = 2500;

}  // namespace

class Interpreter::Frame {
 public:
  explicit Frame(Interpreter& in) : frames_(in.frames_) {
    in.budget_.tick();
    if (++frames_ > kMaxFrames) {
      --frames_;
      fail(ErrorKind::kLimit, "the template nests its work too deeply");
    }
  }
  ~Frame() { --frames_; }

 private:
  int& frames_;
};

// Sends output to its own text while it lives.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& in) : in_(in), outer_(in.out_), text_(in.budget_) { in_.out_ = &text_; }
  ~Capture() { in_.out_ = outer_; }
  Value take() { return in_.string(text_.take()); }
  std::string take_text() { return text_.take(); }

 private:
  Interpreter& in_;
  TextBuffer* outer_;
  TextBuffer text_;
};

Interpreter::Interpreter(Budget& budget, const OrderedJson& variables, const Clock& clock)
    : budget_(budget), variables_(variables), clock_(clock), root_(std::make_shared<Scope>(nullptr)) {}

Interpreter::~Interpreter() {
  // Values may hold each other in circles or long chains: each is still held here while the others are
  // emptied.
  for (const auto& object : kept_) {
    if (object->type == Type::kNamespace) static_cast<NamespaceObject&>(*object).attributes.clear();
    if (object->type == Type::kLoop) static_cast<LoopObject&>(*object).last_changed.reset();
  }
  for (const ScopePtr& scope : captured_scopes_) scope->variables.clear();
}

void Interpreter::keep(std::shared_ptr<Object> value) {
  constexpr uint64_t kBytesPerEntry = 32;
  budget_.allocate(kBytesPerEntry);
  kept_.push_back(std::move(value));
}

void Interpreter::capture(const ScopePtr& scope) {
  if (scope->captured) return;
  constexpr uint64_t kBytesPerScope = 256;
  budget_.allocate(kBytesPerScope);
  captured_scopes_.push_back(scope);
  scope->captured = true;
}

std::string Interpreter::render(const ParsedTemplate& parsed) {
  Capture capture(*this);
  run(parsed.body, root_);
  return capture.take_text();
}

Value Interpreter::new_namespace() {
  auto space = make_object<NamespaceObject>(budget_, 0);
  keep(space);
  return Value(std::move(space));
}

// --- statements
// -------------------------------------------------------------------------------------------------

Interpreter::Flow Interpreter::run(const Body& body, const ScopePtr& scope) {
  for (const auto& statement : body) {
    const Flow flow = run(*statement, scope);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run(const Statement& statement, const ScopePtr& scope) {
  const Frame frame(*this);
  switch (statement.kind) {
    case StatementKind::kOutput:
      run_output(statement, scope);
      break;
    case StatementKind::kIf:
      return run_if(statement, scope);
    case StatementKind::kFor:
      run_for(statement, scope);
      break;
    case StatementKind::kSet:
      run_set(statement, scope);
      break;
    case StatementKind::kSetBlock:
      return run_set_block(statement, scope);
    case StatementKind::kWith:
      return run_with(statement, scope);
    case StatementKind::kMacro:
      scope->set(statement.name, make_macro(statement, scope));
      break;
    case StatementKind::kCallBlock:
      run_call_block(statement, scope);
      break;
    case StatementKind::kFilterBlock:
      return run_filter_block(statement, scope);
    case StatementKind::kScope:
      return run(statement.body, std::make_shared<Scope>(scope));
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

void Interpreter::write(const Value& value) {
  append_text(*out_, budget_, value);
  if (out_->size() > budget_.limits().max_output_bytes)
    fail(ErrorKind::kLimit,
         "the template writes more than " + std::to_string(budget_.limits().max_output_bytes) + " bytes");
}

void Interpreter::run_output(const Statement& statement, const ScopePtr& scope) {
  for (const ExprPtr& expression : statement.expressions) write(eval(*expression, scope));
}

Interpreter::Flow Interpreter::run_if(const Statement& statement, const ScopePtr& scope) {
  for (const Branch& branch : statement.branches)
    if (branch.test == nullptr || is_true(eval(*branch.test, scope))) return run(branch.body, scope);
  return Flow::kNormal;
}

void Interpreter::run_for(const Statement& statement, const ScopePtr& scope) {
  const Value items = eval(*statement.value, scope);
  if (statement.recursive) capture(scope);
  run_loop(statement, scope, items, 0);
}

void Interpreter::run_loop(const Statement& statement, const ScopePtr& scope, const Value& items,
                           int depth0) {
  std::function<bool(const Value&)> accepts;
  if (statement.condition != nullptr) {
    if (statement.uses_loop) capture(scope);  // the loop object may outlive this statement
    accepts = [this, &statement, scope](const Value& item) {
      const auto test_scope = std::make_shared<Scope>(scope);
      assign(*statement.target, item, test_scope);
      return is_true(eval(*statement.condition, test_scope));
    };
  }
  ValueReader reader(budget_, items);
  if (!statement.uses_loop) {
    run_plain_loop(statement, scope, std::move(reader), accepts);
    return;
  }
  auto loop = make_object<LoopObject>(budget_, 0, std::move(reader), std::move(accepts), depth0);
  if (statement.recursive) {
    loop->recursion = &statement;
    loop->closure = scope;
  }
  bool any = false;
  while (loop->advance()) {
    any = true;
    const auto body_scope = std::make_shared<Scope>(scope);
    body_scope->set("loop", Value(loop));
    assign(*statement.target, loop->current(), body_scope);
    if (run(statement.body, body_scope) == Flow::kBreak) break;
  }
  if (!any) run(statement.else_body, std::make_shared<Scope>(scope));
}

void Interpreter::run_plain_loop(const Statement& statement, const ScopePtr& scope, ValueReader reader,
                                 const std::function<bool(const Value&)>& accepts) {
  bool any = false;
  for (Value item; reader.next(item);) {
    if (accepts && !accepts(item)) continue;
    any = true;
    const auto body_scope = std::make_shared<Scope>(scope);
    assign(*statement.target, item, body_scope);
    if (run(statement.body, body_scope) == Flow::kBreak) return;
  }
  if (!any) run(statement.else_body, std::make_shared<Scope>(scope));
}

void Interpreter::run_set(const Statement& statement, const ScopePtr& scope) {
  assign(*statement.target, eval(*statement.value, scope), scope);
}

// What the body writes becomes `text`, unless it breaks or continues a loop around it.
Interpreter::Flow Interpreter::run_captured(const Body& body, const ScopePtr& scope, Value& text) {
  Capture capture(*this);
  const Flow flow = run(body, scope);
  if (flow == Flow::kNormal) text = capture.take();
  return flow;
}

Interpreter::Flow Interpreter::run_set_block(const Statement& statement, const ScopePtr& scope) {
  const auto body_scope = std::make_shared<Scope>(scope);
  Value text;
  if (const Flow flow = run_captured(statement.body, body_scope, text); flow != Flow::kNormal) return flow;
  if (statement.value != nullptr) text = eval_filter(*statement.value, body_scope, &text);
  assign(*statement.target, text, scope);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::run_with(const Statement& statement, const ScopePtr& scope) {
  const auto body_scope = std::make_shared<Scope>(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(*statement.targets[i], eval(*statement.expressions[i], scope), body_scope);
  return run(statement.body, body_scope);
}

Interpreter::Flow Interpreter::run_filter_block(const Statement& statement, const ScopePtr& scope) {
  const auto body_scope = std::make_shared<Scope>(scope);
  Value text;
  if (const Flow flow = run_captured(statement.body, body_scope, text); flow != Flow::kNormal) return flow;
  write(eval_filter(*statement.value, body_scope, &text));
  return Flow::kNormal;
}

void Interpreter::run_call_block(const Statement& statement, const ScopePtr& scope) {
  const Value caller = make_macro(statement, scope);
  write(eval_call(*statement.value, scope, &caller));
}

void Interpreter::assign(const Expr& target, const Value& value, const ScopePtr& scope) {
  if (target.kind == ExprKind::kName) {
    scope->set(target.name, value);
    return;
  }
  if (target.kind == ExprKind::kNamespaceRef) {
    const Value space = lookup(target.name, scope);
    if (!space.is(Type::kNamespace))
      fail(ErrorKind::kRuntime, "cannot assign attribute on non-namespace object");
    auto& object = space.get<NamespaceObject>();
    for (auto& [name, current] : object.attributes) {
      if (name != target.attribute) continue;
      current = value;
      return;
    }
    budget_.allocate(96);
    object.charged += 96;
    object.attributes.emplace_back(target.attribute, value);
    return;
  }
  if (!is_iterable(value))
    fail_type("cannot unpack non-iterable " + std::string(type_name(value)) + " object");
  const std::vector<Value> items = items_of(budget_, value);
  const size_t wanted = target.items.size();
  if (items.size() > wanted)
    fail_value("too many values to unpack (expected " + std::to_string(wanted) + ")");
  if (items.size() < wanted)
    fail_value("not enough values to unpack (expected " + std::to_string(wanted) + ", got " +
               std::to_string(items.size()) + ")");
  for (size_t i = 0; i < wanted; ++i) assign(*target.items[i], items[i], scope);
}

// --- calls
// --------------------------------------------------------------------------------------------------------

Value Interpreter::make_macro(const Statement& statement, const ScopePtr& scope) {
  capture(scope);
  return Value(make_object<MacroObject>(budget_, 0, &statement, scope));
}

Value Interpreter::call(const Value& callee, CallArgs& args) {
  const Frame frame(*this);
  switch (callee.type()) {
    case Type::kCallable:
      return callee.get<CallableObject>().function(*this, args);
    case Type::kMacro:
      return call_macro(callee, args);
    case Type::kLoop:
      return call_recursive_loop(callee, args);
    case Type::kJoiner: {
      auto& joiner = callee.get<JoinerObject>();
      if (std::exchange(joiner.used, true)) return joiner.separator;
      return string("");
    }
    case Type::kUndefined:
      fail_undefined(callee);
    default:
      fail_type(quoted_type(callee) + " object is not callable");
  }
}

namespace {

class CallDepth {
 public:
  CallDepth(int& calls, int limit) : calls_(calls) {
    if (++calls_ <= limit) return;
    --calls_;
    fail(ErrorKind::kLimit, "calls are nested deeper than " + std::to_string(limit));
  }
  ~CallDepth() { --calls_; }

 private:
  int& calls_;
};

// Removes the named argument and gives it; false when absent.
bool take_named(CallArgs& args, std::string_view name, Value& value) {
  for (auto it = args.named.begin(); it != args.named.end(); ++it) {
    if (it->first != name) continue;
    value = std::move(it->second);
    args.named.erase(it);
    return true;
  }
  return false;
}

}  // namespace

// Fills the macro's scope: parameters, defaults (which may read earlier parameters), caller, kwargs, varargs.
void Interpreter::bind_parameters(const MacroObject& macro, CallArgs& args, const ScopePtr& scope) {
  const Statement& statement = *macro.statement;
  const std::string who = "macro " + (statement.name.empty() ? "None" : string_repr(statement.name));
  const size_t count = statement.parameters.size();
  std::vector<const Parameter*> missing;
  bool has_caller_parameter = false;
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = statement.parameters[i];
    if (parameter.name == "caller") has_caller_parameter = true;
    Value value;
    if (i < args.positional.size()) {
      scope->set(parameter.name, args.positional[i]);
    } else if (take_named(args, parameter.name, value)) {
      scope->set(parameter.name, value);
    } else {
      missing.push_back(&parameter);
    }
  }
  for (const Parameter* parameter : missing) {
    if (parameter->default_value != nullptr) {
      scope->set(parameter->name, eval(*parameter->default_value, scope));
    } else {
      scope->set(parameter->name,
                 undefined("parameter " + string_repr(parameter->name) + " was not provided"));
    }
  }
  if (statement.uses_caller && !has_caller_parameter) {
    Value caller;
    if (!take_named(args, "caller", caller)) caller = undefined("No caller defined");
    scope->set("caller", caller);
  }
  if (statement.uses_kwargs) {
    DictBuilder dict(budget_);
    for (auto& [name, value] : args.named) dict.set(string(name), value);
    scope->set("kwargs", dict.take());
  } else if (!args.named.empty()) {
    if (args.named[0].first == "caller")
      fail_type(who +
                " was invoked with two values for the special caller argument. This is most likely a bug.");
    fail_type(who + " takes no keyword argument " + string_repr(args.named[0].first));
  }
  if (statement.uses_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    scope->set("varargs", make_tuple(budget_, std::move(rest)));
  } else if (args.positional.size() > count) {
    fail_type(who + " takes not more than " + std::to_string(count) + " argument(s)");
  }
}

Value Interpreter::call_macro(const Value& callee, CallArgs& args) {
  const CallDepth depth(calls_, budget_.limits().max_depth);
  const auto& macro = callee.get<MacroObject>();
  const auto scope = std::make_shared<Scope>(macro.closure);
  bind_parameters(macro, args, scope);
  Capture capture(*this);
  run(macro.statement->body, scope);
  return capture.take();
}

Value Interpreter::call_recursive_loop(const Value& callee, CallArgs& args) {
  const CallDepth depth(calls_, budget_.limits().max_depth);
  auto& loop = callee.get<LoopObject>();
  if (loop.recursion == nullptr)
    fail_type("The loop must have the 'recursive' marker to be called recursively.");
  const Bound bound("loop", args, {"iterable"}, 1);
  Capture capture(*this);
  run_loop(*loop.recursion, loop.closure, bound[0], loop.depth0 + 1);
  return capture.take();
}

// --- expressions
// --------------------------------------------------------------------------------------------------

Value Interpreter::eval(const Expr& expr, const ScopePtr& scope) {
  const Frame frame(*this);
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return eval_name(expr, scope);
    case ExprKind::kList:
      return make_list(budget_, eval_all(expr.items, scope));
    case ExprKind::kTuple:
      return make_tuple(budget_, eval_all(expr.items, scope));
    case ExprKind::kDict:
      return eval_dict(expr, scope);
    case ExprKind::kGetAttr:
      return attribute(eval(*expr.items[0], scope), expr.name);
    case ExprKind::kGetItem:
      return eval_item(expr, scope);
    case ExprKind::kCall:
      return eval_call(expr, scope);
    case ExprKind::kFilter:
      return eval_filter(expr, scope);
    case ExprKind::kTest:
      return Value::boolean(eval_test(expr, scope));
    case ExprKind::kNot:
      return Value::boolean(!is_true(eval(*expr.items[0], scope)));
    case ExprKind::kNegate:
    case ExprKind::kPlus:
      return eval_sign(expr, scope);
    case ExprKind::kBinary: {
      const Value left = eval(*expr.items[0], scope);
      return binary_operation(*this, expr.binary, left, eval(*expr.items[1], scope));
    }
    case ExprKind::kConcat:
      return eval_concat(expr, scope);
    case ExprKind::kCompare:
      return eval_compare(expr, scope);
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      Value left = eval(*expr.items[0], scope);
      return is_true(left) == (expr.kind == ExprKind::kOr) ? left : eval(*expr.items[1], scope);
    }
    case ExprKind::kConditional:
      if (is_true(eval(*expr.items[0], scope))) return eval(*expr.items[1], scope);
      if (expr.items[2] != nullptr) return eval(*expr.items[2], scope);
      return undefined("the inline if-expression on line " + std::to_string(expr.line) +
                       " evaluated to false and no else section was defined.");
    case ExprKind::kNamespaceRef:
    case ExprKind::kSlice:
      break;  // never evaluated on their own
  }
  fail(ErrorKind::kRuntime, "this expression has no value");
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprPtr>& items, const ScopePtr& scope) {
  std::vector<Value> values;
  values.reserve(items.size());
  for (const ExprPtr& item : items) values.push_back(eval(*item, scope));
  return values;
}

Value Interpreter::eval_name(const Expr& expr, const ScopePtr& scope) {
  return lookup(expr.name, scope);
}

Value Interpreter::lookup(std::string_view name, const ScopePtr& scope) {
  for (Scope* s = scope.get(); s != nullptr; s = s->parent.get())
    if (const Value* found = s->find(name)) return *found;
  if (const auto found = variables_.find(name); found != variables_.end()) {
    const Value value = value_of_json(budget_, *found);
    root_->set(found.key(), value);
    return value;
  }
  Value global;
  if (find_global(*this, name, global)) return global;
  return undefined(string_repr(name) + " is undefined");
}

Value Interpreter::eval_dict(const Expr& expr, const ScopePtr& scope) {
  DictBuilder dict(budget_);
  for (size_t i = 0; i + 1 < expr.items.size(); i += 2) {
    Value key = eval(*expr.items[i], scope);
    dict.set(std::move(key), eval(*expr.items[i + 1], scope));
  }
  return dict.take();
}

Value Interpreter::eval_item(const Expr& expr, const ScopePtr& scope) {
  const Value value = eval(*expr.items[0], scope);
  const Expr& index = *expr.items[1];
  if (index.kind != ExprKind::kSlice) return item(value, eval(index, scope));
  const auto part = [&](size_t i) {
    return index.items[i] == nullptr ? Value() : eval(*index.items[i], scope);
  };
  const Value start = part(0);
  const Value stop = part(1);
  return slice_of(*this, value, start, stop, part(2));
}

CallArgs Interpreter::eval_arguments(const Arguments& arguments, const ScopePtr& scope) {
  CallArgs args;
  args.positional = eval_all(arguments.positional, scope);
  for (const auto& [name, value] : arguments.named) args.named.emplace_back(name, eval(*value, scope));
  if (arguments.more_positional != nullptr)
    for (Value& value : items_of(budget_, eval(*arguments.more_positional, scope)))
      args.positional.push_back(std::move(value));
  if (arguments.more_named != nullptr) {
    const Value named = eval(*arguments.more_named, scope);
    if (!named.is(Type::kDict))
      fail_type("argument after ** must be a mapping, not " + std::string(type_name(named)));
    for (const auto& [key, value] : named.get<DictObject>().entries) {
      if (!key.is_string()) fail_type("keywords must be strings");
      budget_.tick();
      args.named.emplace_back(key.text(), value);
    }
  }
  return args;
}

Value Interpreter::eval_call(const Expr& expr, const ScopePtr& scope, const Value* caller) {
  const Expr& callee = *expr.items[0];
  const auto arguments = [&] {
    CallArgs args = eval_arguments(expr.arguments, scope);
    if (caller != nullptr) args.named.emplace_back("caller", *caller);
    return args;
  };
  if (callee.kind == ExprKind::kGetAttr) {
    const Value self = eval(*callee.items[0], scope);
    if (BuiltinFunction method = find_method(self, callee.name)) {
      CallArgs args = arguments();
      return method(*this, self, args);
    }
    const Value function = attribute(self, callee.name);
    CallArgs args = arguments();
    return call(function, args);
  }
  const Value function = eval(callee, scope);
  CallArgs args = arguments();
  return call(function, args);
}

Value Interpreter::eval_filter(const Expr& expr, const ScopePtr& scope, const Value* block_text) {
  const Value input = expr.items[0] != nullptr
                          ? (expr.items[0]->kind == ExprKind::kFilter && block_text != nullptr
                                 ? eval_filter(*expr.items[0], scope, block_text)
                                 : eval(*expr.items[0], scope))
                          : *block_text;
  CallArgs args = eval_arguments(expr.arguments, scope);
  return filter(expr.name, input, args);
}

bool Interpreter::eval_test(const Expr& expr, const ScopePtr& scope) {
  const Value input = eval(*expr.items[0], scope);
  CallArgs args = eval_arguments(expr.arguments, scope);
  return test(expr.name, input, args);
}

Value Interpreter::eval_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = eval(*expr.items[0], scope);
  for (size_t i = 0; i < expr.comparisons.size(); ++i) {
    Value right = eval(*expr.items[i + 1], scope);
    if (!compare_operation(*this, expr.comparisons[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_concat(const Expr& expr, const ScopePtr& scope) {
  TextBuffer out(budget_);
  for (const Value& value : eval_all(expr.items, scope)) append_text(out, budget_, value);
  return string(out.take());
}

Value Interpreter::eval_sign(const Expr& expr, const ScopePtr& scope) {
  const Value value = eval(*expr.items[0], scope);
  require_defined(value);
  const bool negate = expr.kind == ExprKind::kNegate;
  if (!value.is_number())
    fail_type(std::string("bad operand type for unary ") + (negate ? "-" : "+") + ": '" +
              std::string(type_name(value)) + "'");
  if (value.is(Type::kFloat)) return negate ? Value::real(-value.as_real()) : value;
  return Value::integer(negate ? -value.as_int() : value.as_int());
}

Value Interpreter::filter(std::string_view name, const Value& input, CallArgs& args) {
  const BuiltinFunction function = find_filter(name);
  if (function == nullptr) fail(ErrorKind::kRuntime, "No filter named " + string_repr(name) + ".");
  return function(*this, input, args);
}

bool Interpreter::test(std::string_view name, const Value& input, CallArgs& args) {
  const TestFunction function = find_test(name);
  if (function == nullptr) fail(ErrorKind::kRuntime, "No test named " + string_repr(name) + ".");
  return function(*this, input, args);
}

}  // namespace tessera::text::jinja
