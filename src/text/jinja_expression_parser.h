// The expression half of the parser, with the token stream that both halves read.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace tessera::text::jinja {

// All throw TemplateError with the current line when the stream holds something else.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[pos_ + 1 < tokens_.size() ? pos_ + 1 : pos_]; }
  int line() const { return current().line; }
  // The current token; moves to the next one (never past the end token).
  const Token& next();

  bool at_name(std::string_view name) const {
    return current().kind == TokenKind::kName && current().text == name;
  }
  bool at_operator(std::string_view op) const {
    return current().kind == TokenKind::kOperator && current().text == op;
  }
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  const Token& expect(TokenKind kind, std::string_view what);
  void expect_name(std::string_view name);
  void expect_operator(std::string_view op);
  [[noreturn]] void fail_expected(std::string_view what) const;

 private:
  std::vector<Token> tokens_;
  size_t pos_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : stream_(std::move(tokens)) {}

  TokenStream& stream() { return stream_; }
  const std::set<std::string, std::less<>>& names() const { return names_; }
  // How often `name` was read so far: tells whether a body in between mentions it.
  size_t mentions(std::string_view name) const;

  ExprPtr parse_expression(bool with_conditional = true);
  // One expression, or several with commas between: a tuple. `end_name` may end it too.
  ExprPtr parse_tuple(bool with_conditional = true, std::string_view end_name = "",
                      bool in_parentheses = false);
  // A name, a tuple of targets or, where allowed, namespace.attribute.
  ExprPtr parse_target(std::string_view end_name, bool with_namespace);
  // "| filter | filter": `input` is null for a filter block; `at_name` when the first "|" is left out.
  ExprPtr parse_filters(ExprPtr input, bool at_name);
  ExprPtr constant(Value value, int line);

 private:
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filters);
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters_and_tests(ExprPtr node);
  ExprPtr parse_primary();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_subscribed();
  ExprPtr parse_call(ExprPtr callee);
  ExprPtr parse_test(ExprPtr node);
  ExprPtr parse_simple_target(bool with_namespace);
  Arguments parse_arguments();
  std::string parse_dotted_name();

  std::unique_ptr<Expr> make(ExprKind kind, int line) const;
  // Computes the height and refuses trees that are too high.
  ExprPtr finish(std::unique_ptr<Expr> node) const;
  ExprPtr unary(ExprKind kind, ExprPtr operand, int line) const;
  ExprPtr binary(ExprKind kind, ExprPtr left, ExprPtr right, int line, BinaryOp op = {}) const;

  TokenStream stream_;
  std::set<std::string, std::less<>> names_;
  std::map<std::string, size_t, std::less<>> mention_counts_;
  int nesting_ = 0;
};

}  // namespace tessera::text::jinja
