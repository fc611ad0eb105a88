// str methods that search, split, join and replace.
#include <algorithm>

#include "text/jinja_text_util.h"

namespace tessera::text::jinja {
namespace {

constexpr auto kNone = std::string_view::npos;

Value part_of(Interpreter& in, const Value& self, std::string_view text) {
  return in.string(std::string(text), self.get<StringObject>().safe);
}

// The part of the text that optional start and stop arguments select, as byte offsets.
struct Window {
  size_t begin, end;
  bool valid;  // false: start lies behind the end, nothing is found there, not even an empty string
};

Window window_of(const Value& self, const Bound& bound, size_t start_argument) {
  const auto& string = self.get<StringObject>();
  const auto length = static_cast<int64_t>(string.length);
  const auto place = [&](size_t argument, int64_t otherwise) {
    const int64_t i = bound[argument].is_none() ? otherwise : bound.small(argument, otherwise);
    return std::max<int64_t>(i < 0 ? i + length : i, 0);
  };
  const int64_t start = place(start_argument, 0);
  const int64_t stop = std::min(place(start_argument + 1, length), length);
  const auto offset = [&](int64_t i) {
    const auto at = static_cast<size_t>(std::clamp<int64_t>(i, 0, length));
    return string.is_ascii() ? at : byte_offset(string.text, at);
  };
  return {offset(start), std::max(offset(start), offset(stop)), start <= stop};
}

template <bool kFromEnd, bool kMustFind>
Value find(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kMustFind ? "index" : "find", args, {"sub", "start", "end"}, 1);
  const std::string& part = require_text(bound[0]);
  const Window window = window_of(self, bound, 1);
  const std::string_view text = std::string_view(self.text()).substr(0, window.end);
  size_t at = kNone;
  if (window.valid && part.empty()) {
    at = kFromEnd ? window.end : window.begin;
  } else if (window.valid) {
    at = kFromEnd ? rfind_text(in.budget(), text, part, window.end)
                  : find_text(in.budget(), text, part, window.begin);
    if (kFromEnd && at != kNone && at < window.begin) at = kNone;
  }
  if (at == kNone) {
    if (kMustFind) fail_value("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(static_cast<Int>(count_code_points(text.substr(0, at))));
}

Value count(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("count", args, {"sub", "start", "end"}, 1);
  const std::string& part = require_text(bound[0]);
  const Window window = window_of(self, bound, 1);
  if (!window.valid) return Value::integer(0);
  const std::string_view text = std::string_view(self.text()).substr(0, window.end);
  if (part.empty()) return Value::integer(static_cast<Int>(count_code_points(text.substr(window.begin))) + 1);
  Int found = 0;
  for (size_t at = window.begin; (at = find_text(in.budget(), text, part, at)) != kNone; at += part.size())
    ++found;
  return Value::integer(found);
}

template <bool kPrefix>
Value starts_or_ends_with(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kPrefix ? "startswith" : "endswith", args, {"affix", "start", "end"}, 1);
  const Window window = window_of(self, bound, 1);
  const std::string_view text = std::string_view(self.text()).substr(window.begin, window.end - window.begin);
  const auto matches = [&](const Value& affix_value) {
    const std::string_view affix = require_text(affix_value);
    in.budget().tick(1 + affix.size() / 256);
    if (!window.valid || affix.size() > text.size()) return false;
    return (kPrefix ? text.substr(0, affix.size()) : text.substr(text.size() - affix.size())) == affix;
  };
  if (!bound[0].is(Type::kTuple)) {
    require_defined(bound[0]);
    if (!bound[0].is_string())
      fail_type(std::string(kPrefix ? "startswith" : "endswith") +
                " first arg must be str or a tuple of str, not " + std::string(type_name(bound[0])));
    return Value::boolean(matches(bound[0]));
  }
  for (const Value& affix : bound[0].get<SequenceObject>().items)
    if (matches(affix)) return Value::boolean(true);
  return Value::boolean(false);
}

Value replace(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("replace", args, {"old", "new", "count"}, 2);
  TextBuffer out(in.budget());
  append_replaced(out, in.budget(), self.text(), require_text(bound[0]), require_text(bound[1]),
                  bound.small(2, -1));
  return part_of(in, self, out.take());
}

void split_at_spaces(Interpreter& in, const Value& self, int64_t limit, bool from_end,
                     std::vector<Value>& parts) {
  std::string_view text = trim_spaces(self.text(), true, true);
  const auto word_end = [&](std::string_view rest) {
    size_t at = 0;
    for (size_t next = 0; at < rest.size() && !is_space(next_code_point(rest, next));) at = next;
    return at;
  };
  if (!from_end) {
    for (; !text.empty(); --limit) {
      in.budget().tick();
      const size_t end = limit == 0 ? text.size() : word_end(text);
      // what is left after the last cut keeps its trailing space
      if (limit == 0)
        text =
            trim_spaces(std::string_view(text.data(), self.text().data() + self.text().size() - text.data()),
                        true, false);
      parts.push_back(part_of(in, self, limit == 0 ? text : text.substr(0, end)));
      if (limit == 0) return;
      text = trim_spaces(text.substr(end), true, false);
    }
    return;
  }
  for (; !text.empty(); --limit) {
    in.budget().tick();
    if (limit == 0) {
      const char* begin = self.text().data();
      text = trim_spaces(std::string_view(begin, static_cast<size_t>(text.data() + text.size() - begin)),
                         false, true);
      parts.push_back(part_of(in, self, text));
      break;
    }
    size_t start = text.size();
    while (start > 0) {
      size_t before = start - 1;
      while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) --before;
      size_t next = before;
      if (is_space(next_code_point(text, next))) break;
      start = before;
    }
    parts.push_back(part_of(in, self, text.substr(start)));
    text = trim_spaces(text.substr(0, start), false, true);
  }
  std::reverse(parts.begin(), parts.end());
}

template <bool kFromEnd>
Value split(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kFromEnd ? "rsplit" : "split", args, {"sep", "maxsplit"});
  int64_t limit = bound.small(1, -1);
  if (limit < 0) limit = -1;
  std::vector<Value> parts;
  if (bound[0].is_none()) {
    split_at_spaces(in, self, limit, kFromEnd, parts);
    return make_list(in.budget(), std::move(parts));
  }
  const std::string& separator = require_text(bound[0]);
  if (separator.empty()) fail_value("empty separator");
  const std::string_view text = self.text();
  size_t begin = 0;
  size_t end = text.size();
  for (; limit != 0; --limit) {
    const size_t at = kFromEnd ? rfind_text(in.budget(), text, separator, end)
                               : find_text(in.budget(), text, separator, begin);
    if (at == kNone) break;
    if (kFromEnd) {
      parts.push_back(part_of(in, self, text.substr(at + separator.size(), end - at - separator.size())));
      end = at;
    } else {
      parts.push_back(part_of(in, self, text.substr(begin, at - begin)));
      begin = at + separator.size();
    }
  }
  parts.push_back(part_of(in, self, text.substr(begin, end - begin)));
  if (kFromEnd) std::reverse(parts.begin(), parts.end());
  return make_list(in.budget(), std::move(parts));
}

template <bool kFromEnd>
Value partition(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound(kFromEnd ? "rpartition" : "partition", args, {"sep"}, 1);
  const std::string& separator = require_text(bound[0]);
  if (separator.empty()) fail_value("empty separator");
  const std::string_view text = self.text();
  const size_t at = kFromEnd ? rfind_text(in.budget(), text, separator, text.size())
                             : find_text(in.budget(), text, separator);
  const Value empty = part_of(in, self, "");
  if (at == kNone)
    return kFromEnd ? make_tuple(in.budget(), {empty, empty, self})
                    : make_tuple(in.budget(), {self, empty, empty});
  return make_tuple(in.budget(), {part_of(in, self, text.substr(0, at)), bound[0],
                                  part_of(in, self, text.substr(at + separator.size()))});
}

Value splitlines(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("splitlines", args, {"keepends"});
  in.budget().tick(1 + self.text().size() / 16);
  std::vector<Value> lines;
  for (std::string_view line : split_lines(self.text(), bound.flag(0)))
    lines.push_back(part_of(in, self, line));
  return make_list(in.budget(), std::move(lines));
}

Value join(Interpreter& in, const Value& self, CallArgs& args) {
  const Bound bound("join", args, {"iterable"}, 1);
  TextBuffer out(in.budget());
  size_t index = 0;
  for (const Value& item : items_of(in.budget(), bound[0])) {
    if (!item.is_string())
      fail_type("sequence item " + std::to_string(index) + ": expected str instance, " +
                std::string(type_name(item)) + " found");
    if (index++ > 0) out.append(self.text());
    out.append(item.text());
  }
  return part_of(in, self, out.take());
}

constexpr Builtin kMethods[] = {
    {"count", count},
    {"endswith", starts_or_ends_with<false>},
    {"find", find<false, false>},
    {"index", find<false, true>},
    {"join", join},
    {"partition", partition<false>},
    {"replace", replace},
    {"rfind", find<true, false>},
    {"rindex", find<true, true>},
    {"rpartition", partition<true>},
    {"rsplit", split<true>},
    {"split", split<false>},
    {"splitlines", splitlines},
    {"startswith", starts_or_ends_with<true>},
};

}  // namespace

std::span<const Builtin> string_search_methods() {
  return kMethods;
}

}  // namespace tessera::text::jinja
