// Filters on text.
#include <algorithm>

#include "text/jinja_text_util.h"

namespace tessera::text::jinja {
namespace {

// The piped value as text; keeps what the filters safe and escape marked.
Value as_string(Interpreter& in, const Value& value) {
  return value.is_string() ? value : in.string(in.text_of(value));
}
bool is_safe(const Value& value) {
  return value.get<StringObject>().safe;
}

template <std::string (*kMap)(std::string_view)>
Value filter_case(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("filter", args, {});
  const Value text = as_string(in, self);
  in.budget().tick(1 + text.text().size() / 16);
  in.budget().require_room(text.text().size() * 8);
  return in.string(kMap(text.text()), is_safe(text));
}

// Unlike str.title, a word begins only after a space, a dash or an opening bracket.
std::string title_words(std::string_view text) {
  std::string out;
  size_t word = 0;
  const auto end_word = [&](size_t end) {
    if (word == end) return;
    size_t rest = word;
    next_code_point(text, rest);
    out += to_upper(text.substr(word, rest - word)) + to_lower(text.substr(rest, end - rest));
  };
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(text, pos);
    if (c != '-' && c != '(' && c != '{' && c != '[' && c != '<' && !is_space(c)) continue;
    end_word(start);
    out += text.substr(start, pos - start);
    word = pos;
  }
  end_word(text.size());
  return out;
}

Value filter_trim(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_trim", args, {"chars"});
  const Value text = as_string(in, self);
  const std::string* chars = bound[0].is_none() ? nullptr : &require_text(bound[0]);
  return in.string(std::string(strip_text(in.budget(), text.text(), chars, true, true)), is_safe(text));
}

Value filter_replace(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_replace", args, {"old", "new", "count"}, 2);
  TextBuffer out(in.budget());
  const int64_t count = bound[2].is_none() ? -1 : bound.small(2);
  append_replaced(out, in.budget(), in.text_of(self), in.text_of(bound[0]), in.text_of(bound[1]), count);
  return in.string(out.take());
}

Value filter_string(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("soft_str", args, {});
  return as_string(in, self);
}

Value filter_indent(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_indent", args, {"width", "first", "blank"});
  require_defined(self);
  if (!self.is_string())
    fail_type("unsupported operand type(s) for +=: '" + std::string(type_name(self)) + "' and 'str'");
  TextBuffer indentation(in.budget());
  if (bound[0].is_string()) {
    indentation.append(bound[0].text());
  } else {
    indentation.append(static_cast<size_t>(std::clamp<int64_t>(bound.small(0, 4), 0, int64_t{1} << 40)), ' ');
  }
  const std::string text = self.text() + "\n";
  in.budget().tick(1 + text.size() / 16);
  TextBuffer out(in.budget());
  bool is_first = true;
  for (std::string_view line : split_lines(text, false)) {
    if (!is_first) out.append("\n");
    if (is_first ? bound.flag(1) : bound.flag(2) || !line.empty()) out.append(indentation.text());
    out.append(line);
    is_first = false;
  }
  return in.string(out.take(), is_safe(self));
}

Value filter_truncate(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t length = bound.small(0, 255);
  const std::string end = bound.has(2) ? require_text(bound[2]) : "...";
  const int64_t leeway = bound[3].is_none() ? 5 : bound.small(3);
  const auto end_length = static_cast<int64_t>(count_code_points(end));
  if (length < end_length)
    fail(ErrorKind::kRuntime,
         "expected length >= " + std::to_string(end_length) + ", got " + std::to_string(length));
  if (leeway < 0) fail(ErrorKind::kRuntime, "expected leeway >= 0, got " + std::to_string(leeway));
  size_t size = 0;
  if (!length_of(self, size)) fail_type("object of type '" + std::string(type_name(self)) + "' has no len()");
  const auto whole = static_cast<int64_t>(size);
  if (whole <= length || whole - length <= leeway) return self;
  const std::string& text = require_text(self);
  std::string kept = text.substr(0, byte_offset(text, static_cast<size_t>(length - end_length)));
  if (!bound.flag(1)) {
    const size_t space = kept.rfind(' ');
    if (space != kept.npos) kept.resize(space);
  }
  return in.string(kept + end, is_safe(self));
}

bool is_word_char(char32_t c) {
  return c == '_' || is_alnum(c);
}

Value filter_wordcount(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_wordcount", args, {});
  const std::string text = in.text_of(self);
  in.budget().tick(1 + text.size() / 16);
  Int words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const bool is_word = is_word_char(next_code_point(text, pos));
    words += is_word && !inside;
    inside = is_word;
  }
  return Value::integer(words);
}

// Words, spaces and hyphenated word parts of a line, in order.
std::vector<std::u32string> wrap_chunks(const std::u32string& line, bool break_on_hyphens) {
  std::vector<std::u32string> chunks;
  for (size_t pos = 0; pos < line.size();) {
    size_t end = pos;
    const bool spaces = is_space(line[pos]);
    while (end < line.size() && is_space(line[end]) == spaces) {
      ++end;
      const bool after_hyphen = break_on_hyphens && !spaces && line[end - 1] == '-' && end - pos >= 2 &&
                                is_alpha(line[end - 2]) && end < line.size() && is_alpha(line[end]);
      if (after_hyphen) break;
    }
    chunks.push_back(line.substr(pos, end - pos));
    pos = end;
  }
  return chunks;
}

// The lines of a paragraph, each at most `width` code points where words allow.
std::vector<std::u32string> wrap_line(Budget& budget, std::vector<std::u32string> chunks, size_t width,
                                      bool break_long_words) {
  std::vector<std::u32string> lines;
  std::reverse(chunks.begin(), chunks.end());
  while (!chunks.empty()) {
    budget.tick();
    if (!lines.empty() && is_space(chunks.back()[0])) chunks.pop_back();
    std::vector<std::u32string> current;
    size_t used = 0;
    while (!chunks.empty() && used + chunks.back().size() <= width) {
      used += chunks.back().size();
      current.push_back(std::move(chunks.back()));
      chunks.pop_back();
    }
    if (!chunks.empty() && chunks.back().size() > width) {
      if (break_long_words) {
        const size_t room = width - used;
        current.push_back(chunks.back().substr(0, room));
        chunks.back().erase(0, room);
        budget.tick(1 + chunks.back().size() / 64);
      } else if (current.empty()) {
        current.push_back(std::move(chunks.back()));
        chunks.pop_back();
      }
    }
    if (!current.empty() && (current.back().empty() || is_space(current.back()[0]))) current.pop_back();
    if (current.empty()) continue;
    std::u32string line;
    for (const std::u32string& chunk : current) line += chunk;
    lines.push_back(std::move(line));
  }
  return lines;
}

Value filter_wordwrap(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_wordwrap", args, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  const std::string& text = require_text(self);
  const int64_t width = bound.small(0, 79);
  if (width <= 0) fail_value("invalid width " + std::to_string(width) + " (must be > 0)");
  const std::string wrap = bound[2].is_none() ? "\n" : require_text(bound[2]);
  in.budget().tick(1 + text.size() / 16);
  in.budget().require_room(text.size() * 8);
  TextBuffer out(in.budget());
  bool first_paragraph = true;
  for (std::string_view paragraph : split_lines(text, false)) {
    if (!first_paragraph) out.append(wrap);
    first_paragraph = false;
    bool first = true;
    auto chunks = wrap_chunks(to_code_points(paragraph), bound.flag(3, true));
    for (const auto& line :
         wrap_line(in.budget(), std::move(chunks), static_cast<size_t>(width), bound.flag(1, true))) {
      if (!first) out.append(wrap);
      first = false;
      out.append(to_utf8(line));
    }
  }
  return in.string(out.take());
}

Value filter_center(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_center", args, {"width"});
  return pad_text(in, as_string(in, self), bound.small(0, 80), 0, " ");
}

Value filter_format(Interpreter& in, const Value& self, CallArgs& args) {
  if (!args.named.empty() && !args.positional.empty())
    fail_type("can't handle positional and keyword arguments at the same time");
  if (args.named.empty())
    return format_percent(in, as_string(in, self), make_tuple(in.budget(), args.positional));
  DictBuilder dict(in.budget());
  for (const auto& [name, value] : args.named) dict.set(in.string(name), value);
  return format_percent(in, as_string(in, self), dict.take());
}

// The value with the keys of its dicts in order.
Value with_sorted_keys(Interpreter& in, const Value& value) {
  in.budget().tick();
  if (value.is(Type::kList) || value.is(Type::kTuple)) {
    std::vector<Value> items = items_of(in.budget(), value);
    for (Value& item : items) item = with_sorted_keys(in, item);
    return value.is(Type::kList) ? make_list(in.budget(), std::move(items))
                                 : make_tuple(in.budget(), std::move(items));
  }
  if (!value.is(Type::kDict)) return value;
  const DictObject& dict = value.get<DictObject>();
  std::vector<Value> keys = items_of(in.budget(), value);
  if (std::all_of(keys.begin(), keys.end(), [](const Value& key) { return key.is_string(); }))
    keys = sort_by_keys(in, keys, keys, false);
  DictBuilder sorted(in.budget());
  for (const Value& key : keys) sorted.set(key, with_sorted_keys(in, *dict_find(in.budget(), dict, key)));
  return sorted.take();
}

// On one line, however long.
Value filter_pprint(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("do_pprint", args, {});
  return in.string(to_repr(in.budget(), with_sorted_keys(in, self)));
}

constexpr Builtin kFilters[] = {
    {"capitalize", filter_case<capitalize>},
    {"center", filter_center},
    {"format", filter_format},
    {"indent", filter_indent},
    {"lower", filter_case<to_lower>},
    {"pprint", filter_pprint},
    {"replace", filter_replace},
    {"string", filter_string},
    {"title", filter_case<title_words>},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"upper", filter_case<to_upper>},
    {"wordcount", filter_wordcount},
    {"wordwrap", filter_wordwrap},
};

}  // namespace

std::span<const Builtin> text_filters() {
  return kFilters;
}

}  // namespace tessera::text::jinja
