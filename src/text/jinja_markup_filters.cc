// Filters that write HTML and URLs.
#include <algorithm>

#include "text/jinja_text_util.h"

namespace tessera::text::jinja {

void append_escaped(TextBuffer& out, std::string_view text) {
  size_t plain = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string_view entity;
    switch (text[i]) {
      case '&':
        entity = "&amp;";
        break;
      case '<':
        entity = "&lt;";
        break;
      case '>':
        entity = "&gt;";
        break;
      case '"':
        entity = "&#34;";
        break;
      case '\'':
        entity = "&#39;";
        break;
      default:
        continue;
    }
    out.append(text.substr(plain, i - plain));
    out.append(entity);
    plain = i + 1;
  }
  out.append(text.substr(plain));
}

namespace {

bool is_safe(const Value& value) {
  return value.is_string() && value.get<StringObject>().safe;
}

Value filter_escape(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("escape", args, {});
  if (is_safe(self)) return self;
  TextBuffer out(in.budget());
  append_escaped(out, in.text_of(self));
  return in.string(out.take(), true);
}

Value filter_forceescape(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_forceescape", args, {});
  TextBuffer out(in.budget());
  append_escaped(out, in.text_of(self));
  return in.string(out.take(), true);
}

Value filter_safe(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_mark_safe", args, {});
  return in.string(in.text_of(self), true);
}

std::string unescape_entities(std::string_view text) {
  static constexpr std::pair<std::string_view, char32_t> kEntities[] = {
      {"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}, {"nbsp", 0xA0}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t end = text[i] == '&' ? text.substr(i, 12).find(';') : text.npos;
    if (end == text.npos) {
      out.push_back(text[i++]);
      continue;
    }
    const std::string_view name = text.substr(i + 1, end - 1);
    Int code = 0;
    if (name.size() > 1 && name[0] == '#') {
      const bool hex = (name[1] | 0x20) == 'x';
      const std::string_view digits = name.substr(hex ? 2 : 1);
      if (digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos ||
          !parse_int(digits, hex ? 16 : 10, code))
        code = 0;
      if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) code = 0xFFFD;
    }
    for (const auto& [entity, c] : kEntities)
      if (entity == name) code = c;
    if (code == 0) {
      out.push_back(text[i++]);
      continue;
    }
    append_utf8(out, static_cast<char32_t>(code));
    i += end + 1;
  }
  return out;
}

std::string remove_between(Budget& budget, std::string text, std::string_view open, std::string_view close) {
  std::string out;
  size_t pos = 0;
  while (true) {
    const size_t start = find_text(budget, text, open, pos);
    const size_t end = start == text.npos ? text.npos : find_text(budget, text, close, start);
    if (end == text.npos) break;
    out.append(text, pos, start - pos);
    pos = end + close.size();
  }
  out.append(text, pos);
  return out;
}

Value filter_striptags(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_striptags", args, {});
  std::string text = remove_between(in.budget(), in.text_of(self), "<!--", "-->");
  text = remove_between(in.budget(), std::move(text), "<", ">");
  std::string out;
  std::string_view rest = trim_spaces(text, true, true);
  while (!rest.empty()) {
    in.budget().tick();
    size_t end = 0;
    for (size_t next = 0; end < rest.size() && !is_space(next_code_point(rest, next));) end = next;
    if (!out.empty()) out.push_back(' ');
    out += rest.substr(0, end);
    rest = trim_spaces(rest.substr(end), true, false);
  }
  return in.string(unescape_entities(out));
}

Value filter_xmlattr(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_xmlattr", args, {"autospace"});
  require_defined(self);
  if (!self.is(Type::kDict)) fail_type(quoted_type(self) + " object has no attribute 'items'");
  TextBuffer out(in.budget());
  const bool autospace = bound.flag(0, true);
  for (const auto& [key, value] : self.get<DictObject>().entries) {
    if (value.is_none() || value.is_undefined()) continue;
    const std::string& name = require_text(key);
    if (name.find_first_of(" \t\n\r\f\v/>=") != name.npos)
      fail_value("Invalid character in attribute name: " + string_repr(name));
    if (autospace || out.size() > 0) out.push_back(' ');
    append_escaped(out, name);
    out.append("=\"");
    if (is_safe(value)) {
      out.append(value.text());
    } else {
      append_escaped(out, in.text_of(value));
    }
    out.push_back('"');
  }
  return in.string(out.take());
}

void append_url_quoted(TextBuffer& out, std::string_view text, bool in_query) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !in_query);
    if (plain) {
      out.push_back(c);
    } else if (c == ' ' && in_query) {
      out.push_back('+');
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
}

Value filter_urlencode(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_urlencode", args, {});
  TextBuffer out(in.budget());
  if (self.is_string() || !is_iterable(self)) {
    append_url_quoted(out, in.text_of(self), false);
    return in.string(out.take());
  }
  const auto append_pair = [&](const Value& key, const Value& value) {
    if (out.size() > 0) out.push_back('&');
    append_url_quoted(out, in.text_of(key), true);
    out.push_back('=');
    append_url_quoted(out, in.text_of(value), true);
  };
  if (self.is(Type::kDict)) {
    for (const auto& [key, value] : self.get<DictObject>().entries) append_pair(key, value);
    return in.string(out.take());
  }
  for (const Value& pair : items_of(in.budget(), self)) {
    const std::vector<Value> parts = items_of(in.budget(), pair);
    if (parts.size() != 2) fail_value("urlencode needs pairs");
    append_pair(parts[0], parts[1]);
  }
  return in.string(out.take());
}

Value filter_urlize(Interpreter&, const Value&, CallArgs&) {
  fail(ErrorKind::kSecurity, "a chat template must not use urlize: it makes HTML links");
}

constexpr Builtin kFilters[] = {
    {"e", filter_escape},      {"escape", filter_escape},       {"forceescape", filter_forceescape},
    {"safe", filter_safe},     {"striptags", filter_striptags}, {"urlencode", filter_urlencode},
    {"urlize", filter_urlize}, {"xmlattr", filter_xmlattr},
};

}  // namespace

std::span<const Builtin> markup_filters() {
  return kFilters;
}

}  // namespace tessera::text::jinja
