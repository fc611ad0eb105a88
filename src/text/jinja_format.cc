// Python's two ways to format text: "%s" % values and "{}".format(values).
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja_text_util.h"

namespace tessera::text::jinja {

std::string fixed(double value, int precision) {
  std::string out(static_cast<size_t>(precision) + 400, '\0');
  out.resize(static_cast<size_t>(std::snprintf(out.data(), out.size(), "%.*f", precision, value)));
  return out;
}

namespace {

constexpr int64_t kMaxPrecision = 1000;

// What stands between "%" or ":" and the type letter.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, 0: by type
  char sign = '-';
  bool alternate = false, zero = false;
  char grouping = 0;  // ',' or '_'
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

// Pads `body`, whose sign and prefix stand in `head`, to the width.
void append_padded(Interpreter& in, TextBuffer& out, const Spec& spec, std::string_view head,
                   std::string_view body, char default_align) {
  const char align = spec.align != 0 ? spec.align : default_align;
  const auto length = static_cast<int64_t>(count_code_points(head) + count_code_points(body));
  const int64_t total = std::max<int64_t>(0, std::min<int64_t>(spec.width, int64_t{1} << 40) - length);
  const int64_t before = align == '<' ? 0 : align == '^' ? total / 2 : total;
  in.budget().require_room(static_cast<uint64_t>(total) * spec.fill.size());
  const auto add_fill = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) out.append(spec.fill);
  };
  if (align == '=') {
    out.append(head);
    add_fill(before);
  } else {
    add_fill(before);
    out.append(head);
  }
  out.append(body);
  add_fill(total - before);
}

std::string digits_of(Int value, unsigned base, bool upper) {
  const char* letters = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  auto rest = value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  std::string out;
  do {
    out.push_back(letters[static_cast<size_t>(rest % base)]);
    rest /= base;
  } while (rest != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string grouped(const std::string& digits, char separator) {
  if (separator == 0) return digits;
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % 3 == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out + digits.substr(end);
}

std::string sign_of(const Spec& spec, bool negative) {
  return negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string real_digits(const Spec& spec, double magnitude) {
  const bool upper = spec.type == 'E' || spec.type == 'F' || spec.type == 'G';
  if (std::isnan(magnitude)) return upper ? "NAN" : "nan";
  if (std::isinf(magnitude)) return upper ? "INF" : "inf";
  if (spec.type == 0 && spec.precision < 0) return float_repr(magnitude);
  if (spec.precision > kMaxPrecision) fail_value("precision too big");
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  if (spec.type == '%') return fixed(magnitude * 100, precision) + "%";
  const char letter = spec.type == 0 ? 'g' : spec.type;
  const std::string pattern = std::string(spec.alternate ? "%#.*" : "%.*") + letter;
  std::string out(static_cast<size_t>(precision) + 400, '\0');
  out.resize(
      static_cast<size_t>(std::snprintf(out.data(), out.size(), pattern.c_str(), precision, magnitude)));
  if (spec.type == 0 && out.find_first_of(".en") == out.npos) out += ".0";
  return out;
}

void append_real(Interpreter& in, TextBuffer& out, const Spec& spec, double value) {
  const std::string digits = grouped(real_digits(spec, std::abs(value)), spec.grouping);
  append_padded(in, out, spec, sign_of(spec, std::signbit(value) && !std::isnan(value)), digits, '>');
}

void append_integer(Interpreter& in, TextBuffer& out, const Spec& spec, Int value) {
  const char type = spec.type;
  const unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
  std::string digits = digits_of(value, base, type == 'X');
  if (spec.precision > kMaxPrecision) fail_value("precision too big");
  if (static_cast<int64_t>(digits.size()) < spec.precision)
    digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
  std::string head = sign_of(spec, value < 0);
  if (spec.alternate && base != 10) head += std::string("0") + type;
  append_padded(in, out, spec, head, grouped(digits, spec.grouping), '>');
}

void append_string(Interpreter& in, TextBuffer& out, const Spec& spec, std::string_view text,
                   char default_align) {
  if (spec.precision >= 0) text = text.substr(0, byte_offset(text, static_cast<size_t>(spec.precision)));
  append_padded(in, out, spec, "", text, default_align);
}

// Digits at `pos`, which moves behind them.
int64_t read_number(std::string_view text, size_t& pos) {
  int64_t number = 0;
  for (; pos < text.size() && text[pos] >= '0' && text[pos] <= '9'; ++pos)
    number = std::min<int64_t>(number * 10 + (text[pos] - '0'), int64_t{1} << 40);
  return number;
}

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& in, std::string_view format, const Value& values)
      : in_(in), format_(format), values_(values), out_(in.budget()) {
    if (values.is(Type::kTuple))
      arguments_ = values.get<SequenceObject>().items;
    else
      arguments_.push_back(values);
  }

  std::string run() {
    for (size_t pos = 0; pos < format_.size();) {
      const size_t percent = std::min(format_.find('%', pos), format_.size());
      out_.append(format_.substr(pos, percent - pos));
      pos = percent;
      if (pos < format_.size()) pos = format_one(pos + 1);
    }
    const bool takes_keys = values_.is(Type::kDict) || values_.is(Type::kList) || values_.is(Type::kRange) ||
                            values_.is_undefined();
    if (next_ < arguments_.size() && !takes_keys)
      fail_type("not all arguments converted during string formatting");
    return out_.take();
  }

 private:
  Value next_argument() {
    if (next_ >= arguments_.size()) fail_type("not enough arguments for format string");
    return arguments_[next_++];
  }

  size_t format_one(size_t pos) {
    const auto at_end = [&] {
      if (pos >= format_.size()) fail_value("incomplete format");
    };
    at_end();
    if (format_[pos] == '%') {
      out_.push_back('%');
      return pos + 1;
    }
    Value value;
    bool has_value = false;
    if (format_[pos] == '(') {
      const size_t close = format_.find(')', pos);
      if (close == format_.npos) fail_value("incomplete format key");
      if (!values_.is(Type::kDict)) fail_type("format requires a mapping");
      const std::string_view key = format_.substr(pos + 1, close - pos - 1);
      const Value* found = dict_find(in_.budget(), values_.get<DictObject>(), key);
      if (found == nullptr) fail(ErrorKind::kRuntime, string_repr(key));
      value = *found;
      has_value = true;
      pos = close + 1;
    }
    Spec spec;
    for (; pos < format_.size() && std::string_view("#0- +").find(format_[pos]) != std::string_view::npos;
         ++pos) {
      if (format_[pos] == '#') spec.alternate = true;
      if (format_[pos] == '0') spec.zero = true;
      if (format_[pos] == '-') spec.align = '<';
      if (format_[pos] == ' ' && spec.sign != '+') spec.sign = ' ';
      if (format_[pos] == '+') spec.sign = '+';
    }
    spec.width = read_size(pos, &spec);
    if (pos < format_.size() && format_[pos] == '.')
      spec.precision = std::max<int64_t>(0, read_size(++pos, nullptr));
    while (pos < format_.size() && (format_[pos] == 'l' || format_[pos] == 'h' || format_[pos] == 'L')) ++pos;
    at_end();
    size_t end = pos;
    const char32_t letter = next_code_point(format_, end);
    if (!has_value) value = next_argument();
    append(spec, letter, value);
    return end;
  }

  int64_t read_size(size_t& pos, Spec* spec) {
    if (pos >= format_.size() || format_[pos] != '*') return read_number(format_, pos);
    ++pos;
    int64_t size =
        std::clamp<int64_t>(clamp(require_int(next_argument())), -(int64_t{1} << 40), int64_t{1} << 40);
    if (size < 0 && spec != nullptr) {
      spec->align = '<';
      size = -size;
    }
    return size;
  }

  void append(Spec& spec, char32_t letter, const Value& value) {
    switch (letter) {
      case 's':
        append_string(in_, out_, spec, in_.text_of(value), '>');
        return;
      case 'r':
      case 'a':
        append_string(in_, out_, spec, to_repr(in_.budget(), value), '>');
        return;
      case 'c':
        append_character(spec, value);
        return;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        append_whole(spec, static_cast<char>(letter), value);
        return;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        require_defined(value);
        if (!value.is_number()) fail_type("must be real number, not " + std::string(type_name(value)));
        fill_with_zeros(spec);
        spec.type = static_cast<char>(letter);
        append_real(in_, out_, spec, value.as_real());
        return;
      }
      default: {
        std::string name;
        append_utf8(name, letter);
        fail_value("unsupported format character '" + name + "'");
      }
    }
  }

  static void fill_with_zeros(Spec& spec) {
    if (!spec.zero || spec.align == '<') return;
    spec.fill = "0";
    spec.align = '=';
  }

  void append_whole(Spec& spec, char letter, const Value& value) {
    require_defined(value);
    const bool real_allowed = letter == 'd' || letter == 'i' || letter == 'u';
    if (!value.is_integral() && !(real_allowed && value.is(Type::kFloat)))
      fail_type(std::string("%") + letter + " format: " + (real_allowed ? "a real number" : "an integer") +
                " is required, not " + std::string(type_name(value)));
    fill_with_zeros(spec);
    spec.type = real_allowed ? 'd' : letter;
    if (value.is_integral()) {
      append_integer(in_, out_, spec, value.as_int());
      return;
    }
    const double real = value.as_real();
    if (!(std::abs(real) < 1.7e38)) fail_value("cannot convert float to integer");
    append_integer(in_, out_, spec, static_cast<Int>(real));
  }

  void append_character(const Spec& spec, const Value& value) {
    if (value.is_string() && value.get<StringObject>().length == 1) {
      append_string(in_, out_, spec, value.text(), '>');
      return;
    }
    if (!value.is_integral()) fail_type("%c requires int or char");
    const Int code = value.as_int();
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      fail_value("%c arg not in range(0x110000)");
    std::string text;
    append_utf8(text, static_cast<char32_t>(code));
    append_string(in_, out_, spec, text, '>');
  }

  Interpreter& in_;
  std::string_view format_;
  const Value& values_;
  std::vector<Value> arguments_;
  size_t next_ = 0;
  TextBuffer out_;
};

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [&](size_t at) {
    return at < text.size() && std::string_view("<>^=").find(text[at]) != std::string_view::npos;
  };
  size_t after_fill = 0;
  if (!text.empty()) next_code_point(text, after_fill);
  if (!text.empty() && is_align(after_fill)) {
    spec.fill = text.substr(0, after_fill);
    spec.align = text[after_fill];
    pos = after_fill + 1;
  } else if (is_align(0)) {
    spec.align = text[pos++];
  }
  const auto skip = [&](char c) { return pos < text.size() && text[pos] == c && ++pos > 0; };
  if (pos < text.size() && std::string_view("+- ").find(text[pos]) != std::string_view::npos)
    spec.sign = text[pos++];
  spec.alternate = skip('#');
  if (skip('0')) {
    if (spec.align == 0) spec.align = '=';
    if (spec.fill == " ") spec.fill = "0";
    spec.zero = true;
  }
  spec.width = read_number(text, pos);
  if (pos < text.size() && (text[pos] == ',' || text[pos] == '_')) spec.grouping = text[pos++];
  if (skip('.')) {
    const size_t start = pos;
    spec.precision = read_number(text, pos);
    if (pos == start) fail_value("Format specifier missing precision");
  }
  if (pos < text.size()) spec.type = text[pos++];
  if (pos < text.size()) fail_value("Invalid format specifier");
  return spec;
}

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& in, const CallArgs& args) : in_(in), args_(args), out_(in.budget()) {}

  std::string run(std::string_view format) {
    append(format, 0);
    return out_.take();
  }

 private:
  // Position of the "}" that closes the field that starts at `pos`.
  static size_t field_end(std::string_view format, size_t pos) {
    int depth = 1;
    for (; pos < format.size(); ++pos) {
      if (format[pos] == '{') ++depth;
      if (format[pos] == '}' && --depth == 0) return pos;
    }
    fail_value("expected '}' before end of string");
  }

  void append(std::string_view format, int level) {
    for (size_t pos = 0; pos < format.size();) {
      const size_t brace = std::min(format.find_first_of("{}", pos), format.size());
      out_.append(format.substr(pos, brace - pos));
      pos = brace;
      if (pos == format.size()) return;
      if (pos + 1 < format.size() && format[pos + 1] == format[pos]) {
        out_.push_back(format[pos]);
        pos += 2;
        continue;
      }
      if (format[pos] == '}') fail_value("Single '}' encountered in format string");
      if (pos + 1 == format.size()) fail_value("Single '{' encountered in format string");
      const size_t end = field_end(format, pos + 1);
      append_field(format.substr(pos + 1, end - pos - 1), level);
      pos = end + 1;
    }
  }

  void append_field(std::string_view field, int level) {
    if (level > 1) fail_value("Max string recursion exceeded");
    const size_t name_end = std::min(field.find_first_of("!:"), field.size());
    Value value = resolve(field.substr(0, name_end));
    size_t pos = name_end;
    if (pos < field.size() && field[pos] == '!') {
      const char conversion = pos + 1 < field.size() ? field[pos + 1] : '\0';
      if (conversion == 'r' || conversion == 'a') {
        value = in_.string(to_repr(in_.budget(), value));
      } else if (conversion == 's') {
        value = in_.string(in_.text_of(value));
      } else {
        fail_value("Unknown conversion specifier");
      }
      pos += 2;
    }
    std::string spec;
    if (pos < field.size()) {
      if (field[pos] != ':') fail_value("expected ':' after conversion specifier");
      spec = field.substr(pos + 1);
      if (spec.find('{') != spec.npos) {
        BraceFormatter nested(in_, args_);
        nested.next_ = next_;
        nested.append(spec, level + 1);
        next_ = nested.next_;
        spec = nested.out_.take();
      }
    }
    append_value(value, spec);
  }

  // "name", "0", "" and then ".attribute" or "[key]" parts.
  Value resolve(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first_end));
    for (size_t pos = first_end; pos < name.size();) {
      if (name[pos] == '.') {
        const size_t end = std::min(name.find_first_of(".[", pos + 1), name.size());
        value = in_.attribute(value, name.substr(pos + 1, end - pos - 1));
        pos = end;
      } else if (name[pos] == '[') {
        const size_t end = name.find(']', pos);
        if (end == name.npos) fail_value("Missing ']' in format string");
        const std::string_view key = name.substr(pos + 1, end - pos - 1);
        Int index = 0;
        const bool is_index =
            !key.empty() && key.find_first_not_of("0123456789") == key.npos && parse_int(key, 10, index);
        value = in_.item(value, is_index ? Value::integer(index) : in_.string(std::string(key)));
        pos = end + 1;
      } else {
        fail_value("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  Value argument(std::string_view name) {
    size_t index = 0;
    if (name.empty()) {
      index = next_++;
    } else if (name.find_first_not_of("0123456789") == name.npos) {
      size_t pos = 0;
      index = static_cast<size_t>(read_number(name, pos));
    } else {
      for (const auto& [key, value] : args_.named)
        if (key == name) return value;
      fail(ErrorKind::kRuntime, string_repr(name));
    }
    if (index >= args_.positional.size())
      fail(ErrorKind::kRuntime,
           "Replacement index " + std::to_string(index) + " out of range for positional args tuple");
    return args_.positional[index];
  }

  void append_value(const Value& value, std::string_view text) {
    if (text.empty()) {
      append_text(out_, in_.budget(), value);
      return;
    }
    Spec spec = parse_spec(text);
    const auto unknown_code = [&] {
      fail_value(std::string("Unknown format code '") + spec.type + "' for object of type '" +
                 std::string(type_name(value)) + "'");
    };
    if (value.is_number()) {
      const bool is_real_type =
          spec.type != 0 && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
      if (value.is(Type::kFloat) || is_real_type) {
        if (spec.type != 0 && !is_real_type) unknown_code();
        append_real(in_, out_, spec, value.as_real());
        return;
      }
      if (value.is(Type::kBool) && spec.type == 0) {
        append_string(in_, out_, spec, value.as_bool() ? "True" : "False", '<');
        return;
      }
      if (spec.precision >= 0) fail_value("Precision not allowed in integer format specifier");
      if (spec.type != 0 && std::string_view("bdoxX").find(spec.type) == std::string_view::npos)
        unknown_code();
      append_integer(in_, out_, spec, value.as_int());
      return;
    }
    if (!value.is_string())
      fail_type("unsupported format string passed to " + std::string(type_name(value)) + ".__format__");
    if (spec.type != 0 && spec.type != 's') unknown_code();
    append_string(in_, out_, spec, value.text(), '<');
  }

  Interpreter& in_;
  const CallArgs& args_;
  size_t next_ = 0;
  TextBuffer out_;
};

}  // namespace

Value format_percent(Interpreter& in, const Value& format, const Value& values) {
  return in.string(PercentFormatter(in, format.text(), values).run(), format.get<StringObject>().safe);
}

Value format_braces(Interpreter& in, const Value& format, CallArgs& args) {
  return in.string(BraceFormatter(in, args).run(format.text()), format.get<StringObject>().safe);
}

}  // namespace tessera::text::jinja
