#include "text/unicode.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace tessera::text {
namespace {

// A value that holds from `first` to the next run.
struct Run {
  char32_t first;
  uint8_t value;
};
struct Mapping {
  char32_t from, to;
};
struct Decomposition {
  char32_t from;
  uint16_t offset;  // into kDecomposedPool
  uint8_t length;
};
struct Composition {
  char32_t first, second, whole;
};
enum Category : uint8_t {
  kCn,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,  // clang-format off
  kPe, kPi, kPf, kPo, kSm, kSc, kSk, kSo, kZs, kZl, kZp, kCc, kCf, kCs, kCo
};

#include "text/unicode_tables.inc"
// clang-format on

template <size_t N>
uint8_t value_at(const Run (&runs)[N], char32_t c) {
  auto after = std::upper_bound(std::begin(runs), std::end(runs), c,
                                [](char32_t x, const Run& run) { return x < run.first; });
  return std::prev(after)->value;
}

Category category(char32_t c) {
  return static_cast<Category>(value_at(kCategories, c));
}

uint8_t combining_class(char32_t c) {
  return c < 0x300 ? 0 : value_at(kCombiningClasses, c);
}

// Hangul syllables follow arithmetic instead of tables.
constexpr char32_t kSyllable = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTrail = 0x11A7;
constexpr char32_t kVowels = 21, kTrails = 28, kSyllables = 11172;

template <size_t N>
const Decomposition* find(const Decomposition (&table)[N], char32_t c) {
  auto found = std::lower_bound(std::begin(table), std::end(table), c,
                                [](const Decomposition& entry, char32_t x) { return entry.from < x; });
  return found != std::end(table) && found->from == c ? &*found : nullptr;
}

void append_decomposed(std::u32string& out, char32_t c, bool compatible) {
  if (c < 0xA0) {
    out.push_back(c);
    return;
  }
  if (c >= kSyllable && c < kSyllable + kSyllables) {
    const char32_t index = c - kSyllable;
    out.push_back(kLead + index / (kVowels * kTrails));
    out.push_back(kVowel + index % (kVowels * kTrails) / kTrails);
    if (index % kTrails != 0) out.push_back(kTrail + index % kTrails);
    return;
  }
  const Decomposition* entry = compatible ? find(kCompatible, c) : nullptr;
  if (entry == nullptr) entry = find(kCanonical, c);
  if (entry == nullptr) {
    out.push_back(c);
  } else {
    out.append(kDecomposedPool + entry->offset, entry->length);
  }
}

// Canonical ordering: each run of marks is sorted by combining class, equal ones keep their order.
void order_marks(std::u32string& text) {
  std::vector<std::pair<uint8_t, char32_t>> marks;
  for (size_t i = 0; i < text.size();) {
    if (combining_class(text[i]) == 0) {
      ++i;
      continue;
    }
    const size_t begin = i;
    marks.clear();
    for (; i < text.size(); ++i) {
      const uint8_t ccc = combining_class(text[i]);
      if (ccc == 0) break;
      marks.emplace_back(ccc, text[i]);
    }
    std::stable_sort(marks.begin(), marks.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t k = 0; k < marks.size(); ++k) text[begin + k] = marks[k].second;
  }
}

// 0 when the two do not compose.
char32_t compose_pair(char32_t a, char32_t b) {
  if (a >= kLead && a < kLead + 19 && b >= kVowel && b < kVowel + kVowels)
    return kSyllable + ((a - kLead) * kVowels + (b - kVowel)) * kTrails;
  if (a >= kSyllable && a < kSyllable + kSyllables && (a - kSyllable) % kTrails == 0 && b > kTrail &&
      b < kTrail + kTrails)
    return a + (b - kTrail);
  auto found = std::lower_bound(std::begin(kCompositions), std::end(kCompositions), std::pair(a, b),
                                [](const Composition& entry, const std::pair<char32_t, char32_t>& key) {
                                  return std::pair(entry.first, entry.second) < key;
                                });
  return found != std::end(kCompositions) && found->first == a && found->second == b ? found->whole : 0;
}

void compose(std::u32string& text) {
  size_t write = 0, starter = 0;
  bool have_starter = false;
  int last_class = -1;  // of the last character kept behind the starter; -1: none is there
  for (const char32_t c : text) {
    const int ccc = combining_class(c);
    if (have_starter && (last_class < ccc || last_class == -1)) {
      if (const char32_t whole = compose_pair(text[starter], c)) {
        text[starter] = whole;
        continue;
      }
    }
    if (ccc == 0) {
      starter = write;
      have_starter = true;
      last_class = -1;
    } else {
      last_class = ccc;
    }
    text[write++] = c;
  }
  text.resize(write);
}

// Nothing below these changes under the form.
bool is_unchanged(std::string_view text, NormalForm form) {
  const bool composed = form == NormalForm::kNfc;
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if (byte < 0x80) {
      ++at;
    } else if (!composed || byte >= 0xCC) {  // 0xCC is the first byte of U+0300
      return false;
    } else {
      at += utf8_length(text[at]);
    }
  }
  return true;
}

}  // namespace

char32_t next_code_point(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const size_t length = utf8_length(text[at]);
  if (byte(at) < 0x80) return byte(at++);
  if (length == 1 || at + length > text.size()) {
    ++at;
    return 0xFFFD;
  }
  char32_t c = byte(at) & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) {
      ++at;
      return 0xFFFD;
    }
    c = c << 6 | (byte(at + i) & 0x3F);
  }
  at += length;
  return c > 0x10FFFF ? 0xFFFD : c;
}

size_t incomplete_utf8_tail(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const size_t at = text.size() - back;
    if ((byte(at) & 0xC0) == 0x80) continue;
    if (utf8_length(text[at]) <= back) return 0;
    if (back >= 2) {  // the second byte narrows: no overlong forms, no surrogates, nothing above U+10FFFF
      const uint8_t first = byte(at), second = byte(at + 1);
      if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
          (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F))
        return 0;
    }
    return back;
  }
  return 0;
}

bool is_whitespace(char32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_number(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const Category k = category(c);
  return k == kNd || k == kNl || k == kNo;
}

bool is_mark(char32_t c) {
  if (c < 0x300) return false;
  const Category k = category(c);
  return k == kMn || k == kMc || k == kMe;
}

bool is_nonspacing_mark(char32_t c) {
  return c >= 0x300 && category(c) == kMn;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c > 32 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 127);
  const Category k = category(c);
  return k >= kPc && k <= kPo;
}

bool is_other(char32_t c) {
  const Category k = category(c);
  return k == kCc || k == kCf || k == kCs || k == kCo;
}

bool is_word_character(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  const Category k = category(c);
  return (k >= kLu && k <= kNl) || k == kPc || c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
         (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool is_cjk_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
         (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void append_lower(std::string& out, char32_t c) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    return;
  }
  if (c == 0x130) {  // the one lower-case form of two characters
    out += "i\xCC\x87";
    return;
  }
  auto found = std::lower_bound(std::begin(kLower), std::end(kLower), c,
                                [](const Mapping& entry, char32_t x) { return entry.from < x; });
  append_utf8(out, found != std::end(kLower) && found->from == c ? found->to : c);
}

std::string normalize(std::string_view text, NormalForm form) {
  if (is_unchanged(text, form)) return std::string(text);
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::u32string points;
  points.reserve(text.size());
  for (size_t at = 0; at < text.size();) append_decomposed(points, next_code_point(text, at), compatible);
  order_marks(points);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) compose(points);
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : points) append_utf8(out, c);
  return out;
}

}  // namespace tessera::text
