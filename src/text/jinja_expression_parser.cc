#include "text/jinja_expression_parser.h"

#include <algorithm>
#include <optional>

#include "text/jinja_error.h"

namespace tessera::text::jinja {
namespace {

constexpr int kMaxNesting = 100;  // brackets, unary operators and the like inside each other
constexpr int kMaxHeight = 1000;  // of an expression tree: "a + b + c ..." counts one for each operator

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "template data / text";
    case TokenKind::kBlockBegin:
      return "begin of statement block";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kVariableBegin:
      return "begin of print statement";
    case TokenKind::kVariableEnd:
      return "end of print statement";
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kString:
      return "string";
    default:
      return token.text.substr(0, 100);
  }
}

// Counts one level of recursion while it lives.
class Nested {
 public:
  Nested(int& level, int line) : level_(level) {
    if (++level_ > kMaxNesting) fail_syntax("the expression is nested too deeply", line);
  }
  ~Nested() { --level_; }

 private:
  int& level_;
};

}  // namespace

const Token& TokenStream::next() {
  const Token& token = tokens_[pos_];
  if (pos_ + 1 < tokens_.size()) ++pos_;
  return token;
}
bool TokenStream::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}
bool TokenStream::skip_operator(std::string_view op) {
  if (!at_operator(op)) return false;
  next();
  return true;
}
const Token& TokenStream::expect(TokenKind kind, std::string_view what) {
  if (current().kind != kind) fail_expected(what);
  return next();
}
void TokenStream::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_expected(name);
}
void TokenStream::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_expected(op);
}
void TokenStream::fail_expected(std::string_view what) const {
  if (current().kind == TokenKind::kEnd)
    fail_syntax("unexpected end of template, expected '" + std::string(what) + "'.", line());
  fail_syntax("expected token '" + std::string(what) + "', got '" + describe(current()) + "'", line());
}

size_t ExpressionParser::mentions(std::string_view name) const {
  const auto found = mention_counts_.find(name);
  return found == mention_counts_.end() ? 0 : found->second;
}

std::unique_ptr<Expr> ExpressionParser::make(ExprKind kind, int line) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExprPtr ExpressionParser::finish(std::unique_ptr<Expr> node) const {
  const auto include = [&](const ExprPtr& child) {
    if (child != nullptr) node->height = std::max(node->height, child->height + 1);
  };
  for (const ExprPtr& item : node->items) include(item);
  for (const ExprPtr& argument : node->arguments.positional) include(argument);
  for (const auto& [name, argument] : node->arguments.named) include(argument);
  include(node->arguments.more_positional);
  include(node->arguments.more_named);
  if (node->height > kMaxHeight) fail_syntax("the expression has too many operators", node->line);
  return node;
}

ExprPtr ExpressionParser::unary(ExprKind kind, ExprPtr operand, int line) const {
  auto node = make(kind, line);
  node->items.push_back(std::move(operand));
  return finish(std::move(node));
}

ExprPtr ExpressionParser::binary(ExprKind kind, ExprPtr left, ExprPtr right, int line, BinaryOp op) const {
  auto node = make(kind, line);
  node->binary = op;
  node->items.push_back(std::move(left));
  node->items.push_back(std::move(right));
  return finish(std::move(node));
}

ExprPtr ExpressionParser::constant(Value value, int line) {
  auto node = make(ExprKind::kConstant, line);
  node->constant = std::move(value);
  return node;
}

ExprPtr ExpressionParser::parse_expression(bool with_conditional) {
  const Nested nested(nesting_, stream_.line());
  return with_conditional ? parse_conditional() : parse_or();
}

ExprPtr ExpressionParser::parse_conditional() {
  const Nested nested(nesting_, stream_.line());
  ExprPtr value = parse_or();
  while (stream_.at_name("if")) {
    auto node = make(ExprKind::kConditional, stream_.next().line);
    node->items.push_back(parse_or());
    node->items.push_back(std::move(value));
    node->items.push_back(stream_.skip_name("else") ? parse_conditional() : nullptr);
    value = finish(std::move(node));
  }
  return value;
}

ExprPtr ExpressionParser::parse_or() {
  ExprPtr left = parse_and();
  while (stream_.at_name("or")) {
    const int line = stream_.next().line;
    left = binary(ExprKind::kOr, std::move(left), parse_and(), line);
  }
  return left;
}

ExprPtr ExpressionParser::parse_and() {
  ExprPtr left = parse_not();
  while (stream_.at_name("and")) {
    const int line = stream_.next().line;
    left = binary(ExprKind::kAnd, std::move(left), parse_not(), line);
  }
  return left;
}

ExprPtr ExpressionParser::parse_not() {
  if (!stream_.at_name("not")) return parse_compare();
  const Nested nested(nesting_, stream_.line());
  const int line = stream_.next().line;
  return unary(ExprKind::kNot, parse_not(), line);
}

ExprPtr ExpressionParser::parse_compare() {
  const auto comparison = [&]() -> std::optional<CompareOp> {
    static constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
        {"==", CompareOp::kEqual},  {"!=", CompareOp::kNotEqual},  {"<", CompareOp::kLess},
        {">", CompareOp::kGreater}, {"<=", CompareOp::kLessEqual}, {">=", CompareOp::kGreaterEqual}};
    for (const auto& [text, op] : kOperators)
      if (stream_.skip_operator(text)) return op;
    if (stream_.skip_name("in")) return CompareOp::kIn;
    if (stream_.at_name("not") && stream_.look().kind == TokenKind::kName && stream_.look().text == "in") {
      stream_.next();
      stream_.next();
      return CompareOp::kNotIn;
    }
    return std::nullopt;
  };
  auto node = make(ExprKind::kCompare, stream_.line());
  node->items.push_back(parse_sum());
  while (const auto op = comparison()) {
    node->comparisons.push_back(*op);
    node->items.push_back(parse_sum());
  }
  if (node->comparisons.empty()) return std::move(node->items[0]);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_sum() {
  ExprPtr left = parse_concat();
  while (stream_.at_operator("+") || stream_.at_operator("-")) {
    const Token& token = stream_.next();
    const BinaryOp op = token.text == "+" ? BinaryOp::kAdd : BinaryOp::kSubtract;
    left = binary(ExprKind::kBinary, std::move(left), parse_concat(), token.line, op);
  }
  return left;
}

ExprPtr ExpressionParser::parse_concat() {
  auto node = make(ExprKind::kConcat, stream_.line());
  node->items.push_back(parse_product());
  while (stream_.skip_operator("~")) node->items.push_back(parse_product());
  if (node->items.size() == 1) return std::move(node->items[0]);
  return finish(std::move(node));
}

ExprPtr ExpressionParser::parse_product() {
  static constexpr std::pair<std::string_view, BinaryOp> kOperators[] = {{"*", BinaryOp::kMultiply},
                                                                         {"/", BinaryOp::kDivide},
                                                                         {"//", BinaryOp::kFloorDivide},
                                                                         {"%", BinaryOp::kModulo}};
  ExprPtr left = parse_power();
  while (true) {
    const auto found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                    [&](const auto& entry) { return stream_.at_operator(entry.first); });
    if (found == std::end(kOperators)) return left;
    const int line = stream_.next().line;
    left = binary(ExprKind::kBinary, std::move(left), parse_power(), line, found->second);
  }
}

// Left-associative, and weaker than a sign: as the reference implementation parses it.
ExprPtr ExpressionParser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (stream_.at_operator("**")) {
    const int line = stream_.next().line;
    left = binary(ExprKind::kBinary, std::move(left), parse_unary(true), line, BinaryOp::kPower);
  }
  return left;
}

ExprPtr ExpressionParser::parse_unary(bool with_filters) {
  const Nested nested(nesting_, stream_.line());
  const int line = stream_.line();
  ExprPtr node;
  if (stream_.skip_operator("-")) {
    node = unary(ExprKind::kNegate, parse_unary(false), line);
  } else if (stream_.skip_operator("+")) {
    node = unary(ExprKind::kPlus, parse_unary(false), line);
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filters ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::parse_primary() {
  const Token& token = stream_.current();
  const int line = token.line;
  switch (token.kind) {
    case TokenKind::kName: {
      const std::string& name = stream_.next().text;
      if (name == "true" || name == "True") return constant(Value::boolean(true), line);
      if (name == "false" || name == "False") return constant(Value::boolean(false), line);
      if (name == "none" || name == "None") return constant(Value(), line);
      auto node = make(ExprKind::kName, line);
      node->name = name;
      names_.insert(name);
      ++mention_counts_[name];
      return node;
    }
    case TokenKind::kString: {
      std::string text = stream_.next().text;
      while (stream_.current().kind == TokenKind::kString) text += stream_.next().text;
      return constant(constant_string(std::move(text)), line);
    }
    case TokenKind::kInteger:
      return constant(Value::integer(stream_.next().integer), line);
    case TokenKind::kFloat:
      return constant(Value::real(stream_.next().real), line);
    case TokenKind::kOperator:
      if (stream_.skip_operator("(")) {
        ExprPtr node = parse_tuple(true, "", true);
        stream_.expect_operator(")");
        return node;
      }
      if (token.text == "[") return parse_list();
      if (token.text == "{") return parse_dict();
      break;
    default:
      break;
  }
  fail_syntax("unexpected '" + describe(token) + "'", line);
}

ExprPtr ExpressionParser::parse_tuple(bool with_conditional, std::string_view end_name, bool in_parentheses) {
  auto tuple = make(ExprKind::kTuple, stream_.line());
  const auto at_end = [&] {
    return stream_.current().kind == TokenKind::kVariableEnd ||
           stream_.current().kind == TokenKind::kBlockEnd || stream_.at_operator(")") ||
           (!end_name.empty() && stream_.at_name(end_name));
  };
  bool has_comma = false;
  while (!at_end()) {
    tuple->items.push_back(parse_expression(with_conditional));
    if (!stream_.skip_operator(",")) break;
    has_comma = true;
  }
  if (!has_comma && tuple->items.size() == 1) return std::move(tuple->items[0]);
  if (tuple->items.empty() && !in_parentheses)
    fail_syntax("Expected an expression, got '" + describe(stream_.current()) + "'", stream_.line());
  return finish(std::move(tuple));
}

ExprPtr ExpressionParser::parse_simple_target(bool with_namespace) {
  const Nested nested(nesting_, stream_.line());
  if (stream_.skip_operator("(")) {
    ExprPtr target = parse_target("", with_namespace);
    stream_.expect_operator(")");
    return target;
  }
  const Token& token = stream_.current();
  if (token.kind != TokenKind::kName) fail_syntax("can't assign to '" + describe(token) + "'", token.line);
  auto node = make(ExprKind::kName, token.line);
  node->name = stream_.next().text;
  for (std::string_view reserved : {"true", "false", "none", "True", "False", "None", "loop"})
    if (node->name == reserved && (reserved != "loop" || !with_namespace))
      fail_syntax("can't assign to '" + node->name + "'", node->line);
  if (with_namespace && stream_.skip_operator(".")) {
    node->kind = ExprKind::kNamespaceRef;
    node->attribute = stream_.expect(TokenKind::kName, "name").text;
    ++mention_counts_[node->name];
  }
  return node;
}

ExprPtr ExpressionParser::parse_target(std::string_view end_name, bool with_namespace) {
  auto tuple = make(ExprKind::kTuple, stream_.line());
  tuple->items.push_back(parse_simple_target(with_namespace));
  if (!stream_.at_operator(",")) return std::move(tuple->items[0]);
  while (stream_.skip_operator(",")) {
    if (stream_.current().kind != TokenKind::kName && !stream_.at_operator("(")) break;
    if (!end_name.empty() && stream_.at_name(end_name)) break;
    tuple->items.push_back(parse_simple_target(with_namespace));
  }
  return finish(std::move(tuple));
}

ExprPtr ExpressionParser::parse_list() {
  auto list = make(ExprKind::kList, stream_.line());
  stream_.expect_operator("[");
  while (!stream_.at_operator("]")) {
    if (!list->items.empty()) stream_.expect_operator(",");
    if (stream_.at_operator("]")) break;
    list->items.push_back(parse_expression());
  }
  stream_.expect_operator("]");
  return finish(std::move(list));
}

ExprPtr ExpressionParser::parse_dict() {
  auto dict = make(ExprKind::kDict, stream_.line());
  stream_.expect_operator("{");
  while (!stream_.at_operator("}")) {
    if (!dict->items.empty()) stream_.expect_operator(",");
    if (stream_.at_operator("}")) break;
    dict->items.push_back(parse_expression());
    stream_.expect_operator(":");
    dict->items.push_back(parse_expression());
  }
  stream_.expect_operator("}");
  return finish(std::move(dict));
}

ExprPtr ExpressionParser::parse_postfix(ExprPtr node) {
  while (true) {
    if (stream_.at_operator(".") || stream_.at_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (stream_.at_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_filters_and_tests(ExprPtr node) {
  while (true) {
    if (stream_.at_operator("|")) {
      node = parse_filters(std::move(node), false);
    } else if (stream_.at_name("is")) {
      node = parse_test(std::move(node));
    } else if (stream_.at_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::parse_subscript(ExprPtr node) {
  const Token& opening = stream_.next();
  if (opening.text == ".") {
    const Token& attribute = stream_.next();
    if (attribute.kind == TokenKind::kName) {
      auto access = make(ExprKind::kGetAttr, opening.line);
      access->name = attribute.text;
      access->items.push_back(std::move(node));
      return finish(std::move(access));
    }
    if (attribute.kind != TokenKind::kInteger) fail_syntax("expected name or number", attribute.line);
    ExprPtr index = constant(Value::integer(attribute.integer), attribute.line);
    return binary(ExprKind::kGetItem, std::move(node), std::move(index), opening.line);
  }
  auto tuple = make(ExprKind::kTuple, opening.line);
  while (!stream_.at_operator("]")) {
    if (!tuple->items.empty()) stream_.expect_operator(",");
    tuple->items.push_back(parse_subscribed());
  }
  stream_.expect_operator("]");
  if (tuple->items.size() == 1)
    return binary(ExprKind::kGetItem, std::move(node), std::move(tuple->items[0]), opening.line);
  for (const ExprPtr& item : tuple->items)
    if (item->kind == ExprKind::kSlice) fail_syntax("a tuple of slices is no index", opening.line);
  return binary(ExprKind::kGetItem, std::move(node), finish(std::move(tuple)), opening.line);
}

ExprPtr ExpressionParser::parse_subscribed() {
  auto slice = make(ExprKind::kSlice, stream_.line());
  const auto at_end = [&] { return stream_.at_operator("]") || stream_.at_operator(","); };
  if (stream_.at_operator(":")) {
    slice->items.push_back(nullptr);
  } else {
    ExprPtr index = parse_expression();
    if (!stream_.at_operator(":")) return index;
    slice->items.push_back(std::move(index));
  }
  stream_.next();
  slice->items.push_back(at_end() || stream_.at_operator(":") ? nullptr : parse_expression());
  const bool has_step = stream_.skip_operator(":");
  slice->items.push_back(has_step && !at_end() ? parse_expression() : nullptr);
  return finish(std::move(slice));
}

Arguments ExpressionParser::parse_arguments() {
  Arguments arguments;
  const int line = stream_.line();
  stream_.expect_operator("(");
  const auto ensure = [&](bool valid) {
    if (!valid) fail_syntax("invalid syntax for function call expression", line);
  };
  bool first = true;
  while (!stream_.at_operator(")")) {
    if (!first) stream_.expect_operator(",");
    first = false;
    if (stream_.at_operator(")")) break;
    const bool is_named = stream_.current().kind == TokenKind::kName &&
                          stream_.look().kind == TokenKind::kOperator && stream_.look().text == "=";
    if (stream_.skip_operator("*")) {
      ensure(arguments.more_positional == nullptr && arguments.more_named == nullptr);
      arguments.more_positional = parse_expression();
    } else if (stream_.skip_operator("**")) {
      ensure(arguments.more_named == nullptr);
      arguments.more_named = parse_expression();
    } else if (is_named) {
      ensure(arguments.more_named == nullptr);
      std::string name = stream_.next().text;
      stream_.next();
      arguments.named.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(arguments.more_positional == nullptr && arguments.more_named == nullptr &&
             arguments.named.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  stream_.expect_operator(")");
  return arguments;
}

ExprPtr ExpressionParser::parse_call(ExprPtr callee) {
  auto call = make(ExprKind::kCall, stream_.line());
  call->items.push_back(std::move(callee));
  call->arguments = parse_arguments();
  return finish(std::move(call));
}

std::string ExpressionParser::parse_dotted_name() {
  std::string name = stream_.expect(TokenKind::kName, "name").text;
  while (stream_.skip_operator(".")) name += "." + stream_.expect(TokenKind::kName, "name").text;
  return name;
}

ExprPtr ExpressionParser::parse_filters(ExprPtr input, bool at_name) {
  while (at_name || stream_.skip_operator("|")) {
    at_name = false;
    auto filter = make(ExprKind::kFilter, stream_.line());
    filter->name = parse_dotted_name();
    filter->items.push_back(std::move(input));
    if (stream_.at_operator("(")) filter->arguments = parse_arguments();
    input = finish(std::move(filter));
  }
  return input;
}

ExprPtr ExpressionParser::parse_test(ExprPtr node) {
  const int line = stream_.next().line;
  const bool negated = stream_.skip_name("not");
  auto test = make(ExprKind::kTest, line);
  test->name = parse_dotted_name();
  test->items.push_back(std::move(node));
  const Token& token = stream_.current();
  const bool at_argument =
      token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
      token.kind == TokenKind::kFloat || stream_.at_operator("[") || stream_.at_operator("{") ||
      (token.kind == TokenKind::kName && token.text != "else" && token.text != "or" && token.text != "and");
  if (stream_.at_operator("(")) {
    test->arguments = parse_arguments();
  } else if (at_argument) {
    if (stream_.at_name("is")) fail_syntax("You cannot chain multiple tests with is", token.line);
    test->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  ExprPtr result = finish(std::move(test));
  return negated ? unary(ExprKind::kNot, std::move(result), line) : std::move(result);
}

}  // namespace tessera::text::jinja
