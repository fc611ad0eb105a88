// Python's str() and repr() of values.
#include "text/jinja_macro.h"
#include "text/jinja_value.h"

namespace tessera::text::jinja {
namespace {

constexpr int kMaxReprDepth = 400;  // a namespace may hold itself

void append_items(TextBuffer& out, Budget& budget, const std::vector<Value>& items, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(out, budget, items[i], depth + 1);
  }
}

void append_sequence(TextBuffer& out, Budget& budget, const Value& value, int depth) {
  const auto& sequence = value.get<SequenceObject>();
  switch (sequence.type) {
    case Type::kList:
      out.push_back('[');
      append_items(out, budget, sequence.items, depth);
      out.push_back(']');
      return;
    case Type::kTuple:
      out.push_back('(');
      append_items(out, budget, sequence.items, depth);
      out.append(sequence.items.size() == 1 ? ",)" : ")");
      return;
    case Type::kView:
      out.append(sequence.name);
      out.append("([");
      append_items(out, budget, sequence.items, depth);
      out.append("])");
      return;
    default:
      out.append("<");
      out.append(sequence.name);
      out.append(" object>");
  }
}

void append_dict(TextBuffer& out, Budget& budget, const DictObject& dict, int depth) {
  out.push_back('{');
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(out, budget, dict.entries[i].first, depth + 1);
    out.append(": ");
    append_repr(out, budget, dict.entries[i].second, depth + 1);
  }
  out.push_back('}');
}

void append_namespace(TextBuffer& out, Budget& budget, const NamespaceObject& space, int depth) {
  out.append("<Namespace {");
  for (size_t i = 0; i < space.attributes.size(); ++i) {
    if (i > 0) out.append(", ");
    out.append(string_repr(space.attributes[i].first));
    out.append(": ");
    append_repr(out, budget, space.attributes[i].second, depth + 1);
  }
  out.append("}>");
}

}  // namespace

void append_repr(TextBuffer& out, Budget& budget, const Value& value, int depth) {
  budget.tick();
  if (depth > kMaxReprDepth) fail(ErrorKind::kLimit, "the value to print is nested too deeply");
  switch (value.type()) {
    case Type::kNone:
      out.append("None");
      return;
    case Type::kBool:
      out.append(value.as_bool() ? "True" : "False");
      return;
    case Type::kInt:
      out.append(int_to_string(value.as_int()));
      return;
    case Type::kFloat:
      out.append(float_repr(value.as_real()));
      return;
    case Type::kUndefined:
      out.append("Undefined");
      return;
    case Type::kString: {
      budget.require_room(value.text().size() * 4);
      const std::string literal = string_repr(value.text());
      out.append(value.get<StringObject>().safe ? "Markup(" + literal + ")" : literal);
      return;
    }
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
    case Type::kIterator:
      append_sequence(out, budget, value, depth);
      return;
    case Type::kRange: {
      const auto& range = value.get<RangeObject>();
      out.append("range(" + int_to_string(range.start) + ", " + int_to_string(range.stop));
      if (range.step != 1) out.append(", " + int_to_string(range.step));
      out.push_back(')');
      return;
    }
    case Type::kDict:
      append_dict(out, budget, value.get<DictObject>(), depth);
      return;
    case Type::kNamespace:
      append_namespace(out, budget, value.get<NamespaceObject>(), depth);
      return;
    case Type::kCallable:
      out.append("<function " + value.get<CallableObject>().name + ">");
      return;
    case Type::kMacro: {
      const std::string& name = value.get<MacroObject>().statement->name;
      out.append("<Macro " + (name.empty() ? "anonymous" : string_repr(name)) + ">");
      return;
    }
    case Type::kLoop: {
      auto& loop = value.get<LoopObject>();
      out.append("<LoopContext " + std::to_string(loop.index0() + 1) + "/" + std::to_string(loop.length()) +
                 ">");
      return;
    }
    case Type::kCycler:
      out.append("<Cycler object>");
      return;
    case Type::kJoiner:
      out.append("<Joiner object>");
      return;
  }
}

void append_text(TextBuffer& out, Budget& budget, const Value& value) {
  if (value.is_string()) {
    out.append(value.text());
  } else if (!value.is_undefined()) {
    append_repr(out, budget, value);
  }
}

std::string to_text(Budget& budget, const Value& value) {
  if (value.is_string()) {
    budget.require_room(value.text().size());
    return value.text();
  }
  TextBuffer out(budget);
  append_text(out, budget, value);
  return out.take();
}

std::string to_repr(Budget& budget, const Value& value) {
  TextBuffer out(budget);
  append_repr(out, budget, value);
  return out.take();
}

}  // namespace tessera::text::jinja
