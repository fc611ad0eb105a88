// The tojson filter (json.dumps) and the way back from JSON.
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "text/jinja_builtins.h"

namespace tessera::text::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Interpreter& in, CallArgs& args) : budget_(in.budget()), out_(in.budget()) {
    const Bound bound("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
    ensure_ascii_ = bound.flag(0);
    sort_keys_ = bound.flag(3);
    indented_ = !bound[1].is_none();
    if (bound[1].is_string()) {
      indent_ = bound[1].text();
    } else if (indented_) {
      const Int width = require_int(bound[1]);
      budget_.require_room(static_cast<uint64_t>(clamp(width < 0 ? 0 : width)));
      indent_.assign(static_cast<size_t>(width < 0 ? 0 : width), ' ');
    }
    if (indented_) item_separator_ = ",";
    if (bound[2].is_none()) return;
    const std::vector<Value> separators = items_of(budget_, bound[2]);
    if (separators.size() != 2) fail_value("separators must be two strings");
    item_separator_ = in.text_of(separators[0]);
    key_separator_ = in.text_of(separators[1]);
  }

  std::string write(const Value& value) {
    append(value, 0);
    return out_.take();
  }

 private:
  void append(const Value& value, size_t level) {
    budget_.tick();
    switch (value.type()) {
      case Type::kNone:
        out_.append("null");
        return;
      case Type::kBool:
        out_.append(value.as_bool() ? "true" : "false");
        return;
      case Type::kInt:
        out_.append(int_to_string(value.as_int()));
        return;
      case Type::kFloat:
        out_.append(float_text(value.as_real()));
        return;
      case Type::kString:
        append_string(value.text());
        return;
      case Type::kList:
      case Type::kTuple:
        append_list(value.get<SequenceObject>(), level);
        return;
      case Type::kDict:
        append_dict(value.get<DictObject>(), level);
        return;
      default:
        fail_type("Object of type " + std::string(type_name(value)) + " is not JSON serializable");
    }
  }

  static std::string float_text(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return float_repr(value);
  }

  void new_line(size_t level) {
    if (!indented_) return;
    out_.push_back('\n');
    for (size_t i = 0; i < level; ++i) out_.append(indent_);
  }

  void append_list(const SequenceObject& list, size_t level) {
    if (list.items.empty()) {
      out_.append("[]");
      return;
    }
    out_.push_back('[');
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.append(item_separator_);
      new_line(level + 1);
      append(list.items[i], level + 1);
    }
    new_line(level);
    out_.push_back(']');
  }

  void append_quoted(std::string_view plain) {
    out_.push_back('"');
    out_.append(plain);
    out_.push_back('"');
  }

  void append_key(const Value& key) {
    switch (key.type()) {
      case Type::kString:
        append_string(key.text());
        return;
      case Type::kNone:
        out_.append("\"null\"");
        return;
      case Type::kBool:
        out_.append(key.as_bool() ? "\"true\"" : "\"false\"");
        return;
      case Type::kInt:
        append_quoted(int_to_string(key.as_int()));
        return;
      case Type::kFloat:
        append_quoted(float_text(key.as_real()));
        return;
      default:
        fail_type("keys must be str, int, float, bool or None, not " + std::string(type_name(key)));
    }
  }

  void append_dict(const DictObject& dict, size_t level) {
    if (dict.entries.empty()) {
      out_.append("{}");
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (sort_keys_)
      std::stable_sort(entries.begin(), entries.end(), [this](const auto* a, const auto* b) {
        return compare(budget_, a->first, b->first) < 0;
      });
    out_.push_back('{');
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.append(item_separator_);
      new_line(level + 1);
      append_key(entries[i]->first);
      out_.append(key_separator_);
      append(entries[i]->second, level + 1);
    }
    new_line(level);
    out_.push_back('}');
  }

  void append_unicode_escape(char32_t unit) {
    static constexpr char kHex[] = "0123456789abcdef";
    out_.append("\\u");
    for (int shift = 12; shift >= 0; shift -= 4) out_.push_back(kHex[unit >> shift & 15]);
  }

  void append_string(std::string_view text) {
    static constexpr std::string_view kSpecial = "\"\\\n\r\t\f\b";
    static constexpr std::string_view kLetters = "\"\\nrtfb";
    out_.push_back('"');
    size_t plain = 0;  // start of text not yet copied
    for (size_t pos = 0; pos < text.size();) {
      const size_t start = pos;
      const char32_t c = next_code_point(text, pos);
      const size_t special = c < 0x80 ? kSpecial.find(static_cast<char>(c)) : kSpecial.npos;
      if (special == kSpecial.npos && c >= 0x20 && (c < 0x7F || c == 0x7F || !ensure_ascii_)) continue;
      out_.append(text.substr(plain, start - plain));
      plain = pos;
      if (special != kSpecial.npos) {
        out_.push_back('\\');
        out_.push_back(kLetters[special]);
      } else if (c >= 0x10000) {
        append_unicode_escape(0xD800 + ((c - 0x10000) >> 10));
        append_unicode_escape(0xDC00 + ((c - 0x10000) & 0x3FF));
      } else {
        append_unicode_escape(c);
      }
    }
    out_.append(text.substr(plain));
    out_.push_back('"');
  }

  Budget& budget_;
  TextBuffer out_;
  bool ensure_ascii_ = false, sort_keys_ = false, indented_ = false;
  std::string indent_, item_separator_ = ", ", key_separator_ = ": ";
};

}  // namespace

Value filter_tojson(Interpreter& in, const Value& self, CallArgs& args) {
  return in.string(JsonWriter(in, args).write(self));
}

Value value_of_json(Budget& budget, const OrderedJson& json, int depth) {
  budget.tick();
  if (depth > budget.limits().max_depth)
    fail(ErrorKind::kLimit, "the template's variables are nested too deeply");
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case OrderedJson::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case OrderedJson::value_t::number_unsigned:
      return Value::integer(static_cast<Int>(json.get<uint64_t>()));
    case OrderedJson::value_t::number_float:
      return Value::real(json.get<double>());
    case OrderedJson::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      budget.require_room(text.size());
      return make_string(budget, is_valid_utf8(text) ? text : replace_invalid_utf8(text));
    }
    case OrderedJson::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const OrderedJson& item : json) items.push_back(value_of_json(budget, item, depth + 1));
      return make_list(budget, std::move(items));
    }
    case OrderedJson::value_t::object: {
      DictBuilder dict(budget);
      for (auto it = json.begin(); it != json.end(); ++it)
        dict.set(make_string(budget, is_valid_utf8(it.key()) ? it.key() : replace_invalid_utf8(it.key())),
                 value_of_json(budget, it.value(), depth + 1));
      return dict.take();
    }
    default:
      return Value();
  }
}

}  // namespace tessera::text::jinja
