#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "text/jinja_error.h"

namespace tessera::text::jinja {
namespace {

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_name_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)), text_(source_) {}

  std::vector<Token> run() {
    while (pos_ < text_.size()) lex_data();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return text_.substr(pos_); }
  bool at(std::string_view prefix) const { return rest().substr(0, prefix.size()) == prefix; }
  void add(TokenKind kind, std::string_view text) { tokens_.push_back({kind, line_, std::string(text)}); }
  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(text_.begin() + pos_, text_.begin() + pos_ + bytes, '\n'));
    pos_ += bytes;
    line_starting_ = bytes > 0 && text_[pos_ - 1] == '\n';
  }
  size_t spaces_from(size_t from) const {
    return text_.size() - from - trim_spaces(text_.substr(from), true, false).size();
  }

  // Position of "{%", "{{" or "{#" from pos_, or npos.
  size_t find_tag() const {
    for (size_t i = text_.find('{', pos_); i != text_.npos; i = text_.find('{', i + 1)) {
      if (i + 1 < text_.size() && (text_[i + 1] == '%' || text_[i + 1] == '{' || text_[i + 1] == '#'))
        return i;
    }
    return text_.npos;
  }

  // Adds the text before a tag, stripped as the tag's sign and kind ask.
  void add_data_before(std::string_view data, char sign, bool is_variable) {
    std::string_view kept = data;
    if (sign == '-') {
      kept = trim_spaces(data, false, true);
    } else if (sign != '+' && !is_variable) {
      const size_t newline = data.rfind('\n');
      if (newline != data.npos || line_starting_) {
        const size_t line_start = newline == data.npos ? 0 : newline + 1;
        if (trim_spaces(data.substr(line_start), true, false).empty()) kept = data.substr(0, line_start);
      }
    }
    if (!kept.empty()) add(TokenKind::kData, kept);
  }

  // Length of the end of a tag at `from` ("-%}" and the space behind it, "+%}", "%}" and one newline), 0 if
  // none.
  size_t tag_end_length(size_t from, std::string_view close, bool trims_newline) const {
    const std::string_view tail = text_.substr(from);
    if (tail.substr(0, 1) == "-" && tail.substr(1, 2) == close) return 3 + spaces_from(from + 3);
    if (trims_newline && tail.substr(0, 1) == "+" && tail.substr(1, 2) == close) return 3;
    if (tail.substr(0, 2) != close) return 0;
    return trims_newline && tail.substr(2, 1) == "\n" ? 3 : 2;
  }

  void lex_data() {
    const size_t tag = find_tag();
    if (tag == text_.npos) {
      add(TokenKind::kData, rest());
      advance(text_.size() - pos_);
      return;
    }
    const char kind = text_[tag + 1];
    const char after = tag + 2 < text_.size() ? text_[tag + 2] : ' ';
    const char sign = after == '-' || after == '+' ? after : ' ';
    const size_t raw_length = kind == '%' ? raw_tag_length(tag, sign) : 0;
    add_data_before(text_.substr(pos_, tag - pos_), sign, kind == '{');
    advance(tag - pos_);
    if (raw_length > 0) {
      advance(raw_length);
      lex_raw();
      return;
    }
    const int tag_line = line_;
    advance(sign == ' ' ? 2 : 3);
    line_starting_ = false;
    if (kind == '#') {
      lex_comment(tag_line);
    } else if (kind == '{') {
      add(TokenKind::kVariableBegin, "{{");
      lex_tag(TokenKind::kVariableEnd, "}}");
    } else {
      add(TokenKind::kBlockBegin, "{%");
      lex_tag(TokenKind::kBlockEnd, "%}");
    }
  }

  // Length of "{% raw %}" at `tag`, 0 if another tag stands there.
  size_t raw_tag_length(size_t tag, char sign) const {
    size_t p = tag + (sign == ' ' ? 2 : 3);
    p += spaces_from(p);
    if (text_.substr(p, 3) != "raw") return 0;
    p += 3;
    p += spaces_from(p);
    const size_t end = tag_end_length(p, "%}", false);
    return end == 0 ? 0 : p + end - tag;
  }

  void lex_raw() {
    for (size_t i = text_.find("{%", pos_); i != text_.npos; i = text_.find("{%", i + 1)) {
      size_t p = i + 2;
      char sign = ' ';
      if (p < text_.size() && (text_[p] == '-' || text_[p] == '+')) sign = text_[p++];
      p += spaces_from(p);
      if (text_.substr(p, 6) != "endraw") continue;
      p += 6;
      p += spaces_from(p);
      const size_t end = tag_end_length(p, "%}", true);
      if (end == 0) continue;
      add_data_before(text_.substr(pos_, i - pos_), sign, false);
      advance(p + end - pos_);
      return;
    }
    if (pos_ < text_.size()) fail_syntax("Missing end of raw directive", line_);
  }

  void lex_comment(int tag_line) {
    if (pos_ == text_.size()) return;
    const size_t close = text_.find("#}", pos_);
    if (close == text_.npos) fail_syntax("Missing end of comment tag", tag_line);
    const bool has_sign = close > pos_ && (text_[close - 1] == '-' || text_[close - 1] == '+');
    const size_t end = has_sign ? close - 1 : close;
    advance(end + tag_end_length(end, "#}", true) - pos_);
  }

  void lex_tag(TokenKind end_kind, std::string_view close) {
    std::string open_brackets;
    while (pos_ < text_.size()) {
      if (open_brackets.empty()) {
        if (size_t length = tag_end_length(pos_, close, end_kind == TokenKind::kBlockEnd)) {
          add(end_kind, close);
          advance(length);
          return;
        }
      }
      if (const size_t spaces = spaces_from(pos_)) {
        advance(spaces);
      } else if (is_ascii_digit(text_[pos_])) {
        lex_number();
      } else if (is_name_byte(text_[pos_])) {
        size_t end = pos_;
        while (end < text_.size() && is_name_byte(text_[end])) ++end;
        add(TokenKind::kName, text_.substr(pos_, end - pos_));
        advance(end - pos_);
      } else if (text_[pos_] == '\'' || text_[pos_] == '"') {
        lex_string();
      } else {
        lex_operator(open_brackets);
      }
    }
  }

  void lex_operator(std::string& open_brackets) {
    static constexpr std::array<std::string_view, 26> kOperators{
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto found =
        std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view op) { return at(op); });
    if (found == kOperators.end()) fail_unexpected_char();
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      open_brackets.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (open_brackets.empty()) fail_syntax("unexpected '" + std::string(1, c) + "'", line_);
      if (open_brackets.back() != c)
        fail_syntax("unexpected '" + std::string(1, c) + "', expected '" + open_brackets.back() + "'", line_);
      open_brackets.pop_back();
    }
    add(TokenKind::kOperator, *found);
    advance(found->size());
  }

  [[noreturn]] void fail_unexpected_char() {
    size_t end = pos_;
    next_code_point(text_, end);
    fail_syntax("unexpected char " + string_repr(text_.substr(pos_, end - pos_)) + " at " +
                    std::to_string(count_code_points(text_.substr(0, pos_))),
                line_);
  }

  // Digits with single underscores between them, from `p`; returns the position behind.
  template <typename IsDigit>
  size_t digits_from(size_t p, bool leading_underscore, IsDigit is_digit_of) const {
    while (p < text_.size()) {
      if (is_digit_of(text_[p])) {
        ++p;
        leading_underscore = true;
      } else if (text_[p] == '_' && leading_underscore && p + 1 < text_.size() && is_digit_of(text_[p + 1])) {
        p += 2;
      } else {
        break;
      }
    }
    return p;
  }

  // Position behind a float literal at pos_, or pos_ if none stands there.
  size_t float_end() const {
    if (pos_ > 0 && text_[pos_ - 1] == '.') return pos_;
    const size_t whole = digits_from(pos_, false, is_ascii_digit);
    size_t end = pos_;
    size_t mantissa = whole;
    if (whole + 1 < text_.size() && text_[whole] == '.' && is_ascii_digit(text_[whole + 1]))
      end = mantissa = digits_from(whole + 1, false, is_ascii_digit);
    if (mantissa < text_.size() && (text_[mantissa] | 0x20) == 'e') {
      size_t p = mantissa + 1;
      if (p < text_.size() && (text_[p] == '+' || text_[p] == '-')) ++p;
      if (p < text_.size() && is_ascii_digit(text_[p])) end = digits_from(p, false, is_ascii_digit);
    }
    return end;
  }

  size_t integer_end() const {
    if (text_[pos_] != '0') return digits_from(pos_, false, is_ascii_digit);
    const char prefix = pos_ + 1 < text_.size() ? static_cast<char>(text_[pos_ + 1] | 0x20) : ' ';
    size_t end = pos_ + 2;
    if (prefix == 'x') {
      end = digits_from(end, true,
                        [](char c) { return is_ascii_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); });
    } else if (prefix == 'o') {
      end = digits_from(end, true, [](char c) { return c >= '0' && c <= '7'; });
    } else if (prefix == 'b') {
      end = digits_from(end, true, [](char c) { return c == '0' || c == '1'; });
    }
    if (end > pos_ + 2) return end;
    return digits_from(pos_, false, [](char c) { return c == '0'; });
  }

  void lex_number() {
    if (const size_t end = float_end(); end > pos_) {
      add(TokenKind::kFloat, text_.substr(pos_, end - pos_));
      if (!parse_float(tokens_.back().text, tokens_.back().real)) fail_syntax("invalid number", line_);
      advance(end - pos_);
      return;
    }
    const size_t end = integer_end();
    add(TokenKind::kInteger, text_.substr(pos_, end - pos_));
    if (!parse_int(tokens_.back().text, 0, tokens_.back().integer))
      fail_syntax("the integer " + tokens_.back().text.substr(0, 50) + " is too large", line_);
    advance(end - pos_);
  }

  void lex_string() {
    const char quote = text_[pos_];
    size_t end = pos_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail_unexpected_char();
    add(TokenKind::kString, unescape(text_.substr(pos_ + 1, end - pos_ - 1)));
    advance(end + 1 - pos_);
  }

  std::string unescape(std::string_view raw) {
    std::string out;
    out.reserve(raw.size());
    for (size_t i = 0; i < raw.size();) {
      if (raw[i] != '\\') {
        out.push_back(raw[i++]);
        continue;
      }
      i = unescape_one(raw, i + 1, out);
    }
    return out;
  }

  // Appends the character that the escape names whose letter stands at `i`; returns the position behind it.
  size_t unescape_one(std::string_view raw, size_t i, std::string& out) {
    static constexpr std::string_view kLetters = "abfnrtv\\'\"";
    static constexpr std::string_view kValues = "\a\b\f\n\r\t\v\\'\"";
    const char c = raw[i++];
    if (const size_t simple = kLetters.find(c); simple != kLetters.npos) {
      out.push_back(kValues[simple]);
    } else if (c >= '0' && c <= '7') {
      char32_t value = static_cast<char32_t>(c - '0');
      for (int n = 0; n < 2 && i < raw.size() && raw[i] >= '0' && raw[i] <= '7'; ++n)
        value = value * 8 + static_cast<char32_t>(raw[i++] - '0');
      append_utf8(out, value);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      Int value = 0;
      const std::string_view digits = raw.substr(std::min(i, raw.size()), width);
      const bool all_hex = digits.find_first_not_of("0123456789abcdefABCDEF") == digits.npos;
      if (digits.size() < width || !all_hex || !parse_int(digits, 16, value))
        fail_syntax("truncated \\" + std::string(1, c) + std::string(width, 'X') + " escape", line_);
      if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
        fail_syntax("illegal Unicode character in a string", line_);
      append_utf8(out, static_cast<char32_t>(value));
      i += width;
    } else if (c == 'N') {
      fail_syntax("\\N{...} escapes are not supported", line_);
    } else if (c != '\n') {
      out.push_back('\\');
      out.push_back(c);
    }
    return i;
  }

  std::string source_;
  std::string_view text_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last match ended with a newline
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace tessera::text::jinja
