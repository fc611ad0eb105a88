// The parsed template: immutable, shared by concurrent renderings.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja_value.h"

namespace tessera::text::jinja {

struct Expr;
struct Statement;
using ExprPtr = std::unique_ptr<const Expr>;
using Body = std::vector<std::unique_ptr<const Statement>>;

enum class ExprKind {
  kConstant,      // constant
  kName,          // name
  kNamespaceRef,  // name . attribute, only as a target of set
  kList,          // items
  kTuple,         // items
  kDict,          // items: key, value, key, value
  kGetAttr,       // items[0] . name
  kGetItem,       // items[0] [ items[1] ]
  kSlice,         // items: start, stop, step; null where left out; only as items[1] of kGetItem
  kCall,          // items[0] ( arguments )
  kFilter,        // items[0] | name ( arguments ); items[0] is null when a filter block pipes its body
  kTest,          // items[0] is name ( arguments )
  kNot,           // items[0]
  kNegate,        // items[0]
  kPlus,          // items[0]
  kBinary,        // items[0] binary items[1]
  kConcat,        // items joined as text
  kCompare,       // items[0] comparisons[0] items[1] comparisons[1] items[2] ...
  kAnd,           // items[0], items[1]
  kOr,            // items[0], items[1]
  kConditional,   // items: test, then, else; else may be null
};

enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional;  // *expression; may be null
  ExprPtr more_named;       // **expression; may be null
};

struct Expr {
  ExprKind kind;
  int line;
  int height = 1;  // of the tree below, itself included: bounds the recursion of everything that walks it
  Value constant;
  std::string name;
  std::string attribute;
  std::vector<ExprPtr> items;
  BinaryOp binary{};
  std::vector<CompareOp> comparisons;
  Arguments arguments;
};

enum class StatementKind {
  kOutput,       // expressions, written one after the other
  kIf,           // branches
  kFor,          // target in value, if condition, recursive; body, else_body
  kSet,          // target = value
  kSetBlock,     // target = body, through the filter `value` if not null
  kWith,         // targets[i] = expressions[i]; body
  kMacro,        // name, parameters; body
  kCallBlock,    // value is the call; parameters of caller; body
  kFilterBlock,  // value is the filter; body
  kScope,        // body in its own scope: block and generation tags
  kBreak,
  kContinue,
};

struct Parameter {
  std::string name;
  ExprPtr default_value;  // null: none
};

struct Branch {
  ExprPtr test;  // null: else
  Body body;
};

struct Statement {
  StatementKind kind;
  int line;
  std::string name;
  ExprPtr target, value, condition;
  std::vector<ExprPtr> targets, expressions;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Body body, else_body;
  bool recursive = false;
  bool uses_loop = false;    // kFor: the body mentions `loop`
  bool uses_caller = false;  // kMacro, kCallBlock: the body mentions these names
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

}  // namespace tessera::text::jinja
