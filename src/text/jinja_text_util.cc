#include "text/jinja_text_util.h"

#include <algorithm>
#include <cstring>

namespace tessera::text::jinja {

size_t find_text(Budget& budget, std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return text.npos;
  // memmem takes linear time for every input, std::string_view::find does not.
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  const size_t at =
      found == nullptr ? text.npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
  budget.tick(1 + (std::min(at, text.size()) - from) / 64);
  return at;
}

size_t rfind_text(Budget& budget, std::string_view text, std::string_view part, size_t end) {
  if (part.size() > end) return text.npos;
  for (size_t at = end - part.size() + 1; at-- > 0;) {
    if (text[at] != part[0]) continue;
    budget.tick(1 + part.size() / 64);
    if (text.compare(at, part.size(), part) == 0) return at;
  }
  return text.npos;
}

void append_replaced(TextBuffer& out, Budget& budget, std::string_view text, std::string_view old_text,
                     std::string_view new_text, int64_t count) {
  size_t pos = 0;
  if (old_text.empty()) {
    while (count != 0) {
      out.append(new_text);
      --count;
      if (pos == text.size()) return;
      const size_t start = pos;
      next_code_point(text, pos);
      out.append(text.substr(start, pos - start));
    }
  }
  while (count != 0 && !old_text.empty()) {
    const size_t found = find_text(budget, text, old_text, pos);
    if (found == text.npos) break;
    out.append(text.substr(pos, found - pos));
    out.append(new_text);
    pos = found + old_text.size();
    --count;
  }
  out.append(text.substr(pos));
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = next_code_point(text, pos);
    if (!is_line_break(c)) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    lines.push_back(text.substr(start, (keep_ends ? pos : at) - start));
    start = pos;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string_view strip_text(Budget& budget, std::string_view text, const std::string* chars, bool left,
                            bool right) {
  budget.tick(1 + text.size() / 64);
  if (chars == nullptr) return trim_spaces(text, left, right);
  const std::u32string set = to_code_points(*chars);
  const auto in_set = [&](char32_t c) {
    budget.tick(1 + set.size() / 64);
    return set.find(c) != set.npos;
  };
  if (left) {
    size_t pos = 0;
    for (size_t next = 0; pos < text.size() && in_set(next_code_point(text, next));) pos = next;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t pos = start;
    if (!in_set(next_code_point(text, pos))) break;
    text = text.substr(0, start);
  }
  return text;
}

Value pad_text(Interpreter& in, const Value& text, int64_t width, int side, std::string_view fill) {
  const auto length = static_cast<int64_t>(text.get<StringObject>().length);
  if (width <= length) return text;
  const int64_t total = width - length;
  // Python puts the odd space of a centred text to the left when the width is odd.
  const int64_t before = side < 0 ? 0 : side > 0 ? total : total / 2 + (total & width & 1);
  TextBuffer out(in.budget());
  in.budget().require_room(static_cast<uint64_t>(total));
  const auto add_fill = [&](int64_t count) {
    if (fill.size() == 1) {
      out.append(static_cast<size_t>(count), fill[0]);
      return;
    }
    for (int64_t i = 0; i < count; ++i) out.append(fill);
  };
  add_fill(before);
  out.append(text.text());
  add_fill(total - before);
  return in.string(out.take(), text.get<StringObject>().safe);
}

const std::string& require_text(const Value& value) {
  require_defined(value);
  if (!value.is_string()) fail_type("expected a string, got " + std::string(type_name(value)));
  return value.text();
}

}  // namespace tessera::text::jinja
