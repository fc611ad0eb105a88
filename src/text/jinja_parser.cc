#include "text/jinja_parser.h"

#include "text/jinja_expression_parser.h"

namespace tessera::text::jinja {
namespace {

using StatementPtr = std::unique_ptr<const Statement>;

constexpr int kMaxBlockNesting = 100;

class Parser {
 public:
  explicit Parser(std::string_view source) : expressions_(tokenize(source)) {}

  ParsedTemplate run() {
    ParsedTemplate parsed;
    parsed.body = parse_body({});
    parsed.names = expressions_.names();
    return parsed;
  }

 private:
  using EndTags = std::vector<std::string_view>;
  using Stream = TokenStream;

  Stream& stream() { return expressions_.stream(); }

  // Statements up to a tag of `end_tags`, whose name is then the current token (or the end of the template
  // when there are none).
  Body parse_body(const EndTags& end_tags) {
    if (++nesting_ > kMaxBlockNesting) fail_syntax("blocks are nested too deeply", stream().line());
    Body body;
    while (stream().current().kind != TokenKind::kEnd) {
      const Token& token = stream().current();
      if (token.kind == TokenKind::kData) {
        body.push_back(text_statement(stream().next()));
      } else if (token.kind == TokenKind::kVariableBegin) {
        auto output = make(StatementKind::kOutput);
        stream().next();
        output->expressions.push_back(expressions_.parse_tuple());
        stream().expect(TokenKind::kVariableEnd, "end of print statement");
        body.push_back(std::move(output));
      } else {
        stream().next();
        if (is_end_tag(end_tags)) {
          --nesting_;
          return body;
        }
        body.push_back(parse_statement(end_tags));
        stream().expect(TokenKind::kBlockEnd, "end of statement block");
      }
    }
    if (!end_tags.empty())
      fail_syntax("Unexpected end of template." + looking_for(end_tags), stream().line());
    --nesting_;
    return body;
  }

  bool is_end_tag(const EndTags& end_tags) {
    for (std::string_view tag : end_tags)
      if (stream().at_name(tag)) return true;
    return false;
  }

  std::string looking_for(const EndTags& end_tags) {
    std::string names;
    for (std::string_view tag : end_tags) names += (names.empty() ? "'" : " or '") + std::string(tag) + "'";
    std::string message = " Jinja was looking for the following tags: " + names + ".";
    if (!open_tags_.empty())
      message += " The innermost block that needs to be closed is '" + open_tags_.back() + "'.";
    return message;
  }

  // The body of a tag whose head was parsed up to the end of the tag.
  Body parse_block_body(const EndTags& end_tags) {
    stream().skip_operator(":");
    stream().expect(TokenKind::kBlockEnd, "end of statement block");
    return parse_body(end_tags);
  }
  Body parse_block_body_to(std::string_view end_tag) {
    Body body = parse_block_body({end_tag});
    stream().next();
    return body;
  }

  std::unique_ptr<Statement> make(StatementKind kind) {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = stream().line();
    return statement;
  }

  StatementPtr text_statement(const Token& token) {
    auto statement = make(StatementKind::kOutput);
    statement->line = token.line;
    statement->expressions.push_back(expressions_.constant(constant_string(token.text), token.line));
    return statement;
  }

  StatementPtr parse_statement(const EndTags& end_tags) {
    const Token tag = stream().current();
    if (tag.kind != TokenKind::kName) fail_syntax("tag name expected", tag.line);
    static const std::pair<std::string_view, StatementPtr (Parser::*)()> kTags[] = {
        {"for", &Parser::parse_for},         {"if", &Parser::parse_if},
        {"set", &Parser::parse_set},         {"macro", &Parser::parse_macro},
        {"call", &Parser::parse_call_block}, {"filter", &Parser::parse_filter_block},
        {"with", &Parser::parse_with},       {"print", &Parser::parse_print},
        {"block", &Parser::parse_block},     {"generation", &Parser::parse_generation},
        {"break", &Parser::parse_break},     {"continue", &Parser::parse_continue},
    };
    for (const auto& [name, parse] : kTags) {
      if (tag.text != name) continue;
      open_tags_.emplace_back(name);
      StatementPtr statement = (this->*parse)();
      open_tags_.pop_back();
      return statement;
    }
    for (std::string_view refused : {"include", "import", "from", "extends", "autoescape"})
      if (tag.text == refused)
        fail_syntax("a chat template must not use '" + tag.text + "': it is one self-contained file",
                    tag.line);
    fail_syntax(
        "Encountered unknown tag '" + tag.text + "'." + (end_tags.empty() ? "" : looking_for(end_tags)),
        tag.line);
  }

  StatementPtr parse_for() {
    auto loop = make(StatementKind::kFor);
    stream().next();
    loop->target = expressions_.parse_target("in", false);
    stream().expect_name("in");
    loop->value = expressions_.parse_tuple(false, "recursive");
    if (stream().skip_name("if")) loop->condition = expressions_.parse_expression();
    loop->recursive = stream().skip_name("recursive");
    const size_t mentions = expressions_.mentions("loop");
    ++loop_depth_;
    loop->body = parse_block_body({"endfor", "else"});
    --loop_depth_;
    loop->uses_loop = loop->recursive || expressions_.mentions("loop") > mentions;
    if (stream().next().text == "else") loop->else_body = parse_block_body_to("endfor");
    return loop;
  }

  StatementPtr parse_if() {
    auto statement = make(StatementKind::kIf);
    stream().next();
    while (true) {
      Branch branch;
      branch.test = expressions_.parse_tuple(false);
      branch.body = parse_block_body({"elif", "else", "endif"});
      statement->branches.push_back(std::move(branch));
      const std::string tag = stream().next().text;
      if (tag == "elif") continue;
      if (tag == "else") statement->branches.push_back({nullptr, parse_block_body_to("endif")});
      return statement;
    }
  }

  StatementPtr parse_set() {
    auto statement = make(StatementKind::kSet);
    stream().next();
    statement->target = expressions_.parse_target("", true);
    if (stream().skip_operator("=")) {
      statement->value = expressions_.parse_tuple();
      return statement;
    }
    statement->kind = StatementKind::kSetBlock;
    if (stream().at_operator("|")) statement->value = expressions_.parse_filters(nullptr, false);
    statement->body = parse_block_body_to("endset");
    return statement;
  }

  StatementPtr parse_with() {
    auto statement = make(StatementKind::kWith);
    stream().next();
    while (stream().current().kind != TokenKind::kBlockEnd) {
      if (!statement->targets.empty()) stream().expect_operator(",");
      statement->targets.push_back(expressions_.parse_target("", false));
      stream().expect_operator("=");
      statement->expressions.push_back(expressions_.parse_expression());
    }
    statement->body = parse_block_body_to("endwith");
    return statement;
  }

  void parse_parameters(Statement& statement) {
    stream().expect_operator("(");
    while (!stream().at_operator(")")) {
      if (!statement.parameters.empty()) stream().expect_operator(",");
      Parameter parameter;
      parameter.name = stream().expect(TokenKind::kName, "name").text;
      if (stream().skip_operator("=")) {
        parameter.default_value = expressions_.parse_expression();
      } else if (!statement.parameters.empty() && statement.parameters.back().default_value != nullptr) {
        fail_syntax("non-default argument follows default argument", stream().line());
      }
      statement.parameters.push_back(std::move(parameter));
    }
    stream().expect_operator(")");
  }

  void parse_macro_body(Statement& macro, std::string_view end_tag) {
    const size_t caller = expressions_.mentions("caller");
    const size_t varargs = expressions_.mentions("varargs");
    const size_t kwargs = expressions_.mentions("kwargs");
    const int outer_loops = std::exchange(loop_depth_, 0);
    macro.body = parse_block_body_to(end_tag);
    loop_depth_ = outer_loops;
    macro.uses_caller = expressions_.mentions("caller") > caller;
    macro.uses_varargs = expressions_.mentions("varargs") > varargs;
    macro.uses_kwargs = expressions_.mentions("kwargs") > kwargs;
    for (const Parameter& parameter : macro.parameters) {
      if (parameter.name == "varargs") macro.uses_varargs = false;
      if (parameter.name == "kwargs") macro.uses_kwargs = false;
      if (parameter.name != "caller" || !macro.uses_caller) continue;
      if (parameter.default_value == nullptr)
        fail_syntax(
            "When defining macros or call blocks the special \"caller\" argument must be omitted or be given "
            "a "
            "default.",
            macro.line);
      macro.uses_caller = false;
    }
  }

  StatementPtr parse_macro() {
    auto macro = make(StatementKind::kMacro);
    stream().next();
    macro->name = stream().expect(TokenKind::kName, "name").text;
    parse_parameters(*macro);
    parse_macro_body(*macro, "endmacro");
    return macro;
  }

  StatementPtr parse_call_block() {
    auto statement = make(StatementKind::kCallBlock);
    stream().next();
    if (stream().at_operator("(")) parse_parameters(*statement);
    statement->value = expressions_.parse_expression();
    if (statement->value->kind != ExprKind::kCall) fail_syntax("expected call", statement->line);
    parse_macro_body(*statement, "endcall");
    return statement;
  }

  StatementPtr parse_filter_block() {
    auto statement = make(StatementKind::kFilterBlock);
    stream().next();
    statement->value = expressions_.parse_filters(nullptr, true);
    statement->body = parse_block_body_to("endfilter");
    return statement;
  }

  StatementPtr parse_print() {
    auto statement = make(StatementKind::kOutput);
    stream().next();
    while (stream().current().kind != TokenKind::kBlockEnd) {
      if (!statement->expressions.empty()) stream().expect_operator(",");
      statement->expressions.push_back(expressions_.parse_expression());
    }
    return statement;
  }

  StatementPtr parse_block() {
    auto statement = make(StatementKind::kScope);
    stream().next();
    statement->name = stream().expect(TokenKind::kName, "name").text;
    stream().skip_name("scoped");
    if (stream().skip_name("required"))
      fail_syntax("a chat template must not use required blocks", statement->line);
    const int outer_loops = std::exchange(loop_depth_, 0);
    statement->body = parse_block_body_to("endblock");
    loop_depth_ = outer_loops;
    stream().skip_name(statement->name);
    return statement;
  }

  // Marks the assistant's own words for training; renders its body.
  StatementPtr parse_generation() {
    auto statement = make(StatementKind::kScope);
    stream().next();
    const int outer_loops = std::exchange(loop_depth_, 0);
    statement->body = parse_block_body_to("endgeneration");
    loop_depth_ = outer_loops;
    return statement;
  }

  StatementPtr parse_loop_control(StatementKind kind) {
    auto statement = make(kind);
    const Token token = stream().next();
    if (loop_depth_ == 0) fail_syntax("'" + token.text + "' outside loop", token.line);
    return statement;
  }
  StatementPtr parse_break() { return parse_loop_control(StatementKind::kBreak); }
  StatementPtr parse_continue() { return parse_loop_control(StatementKind::kContinue); }

  ExpressionParser expressions_;
  std::vector<std::string> open_tags_;
  int nesting_ = 0;
  int loop_depth_ = 0;
};

}  // namespace

ParsedTemplate parse_template(std::string_view source) {
  return Parser(source).run();
}

}  // namespace tessera::text::jinja
