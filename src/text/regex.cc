#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <oniguruma.h>
#include <pcre2.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>

#include "text/unicode.h"

namespace tessera::text {

// One compiled pattern.
class Regex::Engine {
 public:
  virtual ~Engine() = default;
  // The first match at or behind `from` as [begin, end); nullopt: none.
  struct Range {
    size_t begin, end;
  };
  virtual Result<std::optional<Range>> search(std::string_view text, size_t from) const = 0;
};

namespace {

constexpr size_t kJitStackStart = 32 << 10, kJitStackMax = 16 << 20;
// Steps of one match: enough for 16 MiB of one letter, and an end to patterns that never would.
constexpr uint32_t kMatchLimit = 100'000'000;

// What PCRE2 needs beside the pattern; one per thread, because a match writes into it.
struct PcreScratch {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);
  PcreScratch() {
    if (context == nullptr) return;
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~PcreScratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
  PcreScratch(const PcreScratch&) = delete;
  PcreScratch& operator=(const PcreScratch&) = delete;
};

class PcreEngine final : public Regex::Engine {
 public:
  // Null when PCRE2 does not read the pattern.
  static std::shared_ptr<const PcreEngine> compile(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
    if (code == nullptr) return nullptr;
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it fails, the interpreter runs the pattern
    return std::make_shared<PcreEngine>(code);
  }
  explicit PcreEngine(pcre2_code* code) : code_(code) {}
  ~PcreEngine() override { pcre2_code_free(code_); }

  Result<std::optional<Range>> search(std::string_view text, size_t from) const override {
    static thread_local PcreScratch scratch;
    if (scratch.match == nullptr || scratch.context == nullptr)
      return resource_exhausted("no memory for a regular expression's match");
    const int count = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                  PCRE2_NO_UTF_CHECK, scratch.match, scratch.context);
    if (count == PCRE2_ERROR_NOMATCH) return std::optional<Range>();
    if (count < 0)
      return resource_exhausted("a regular expression of the tokenizer gave up on this text (PCRE2 error " +
                                std::to_string(count) + ")");
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.match);
    return std::optional<Range>({range[0], range[1]});
  }

 private:
  pcre2_code* code_;
};

class OnigurumaEngine final : public Regex::Engine {
 public:
  static Result<std::shared_ptr<const OnigurumaEngine>> compile(std::string_view pattern) {
    static std::once_flag once;
    std::call_once(once, [] {
      OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
      onig_initialize(encodings, 1);
      onig_set_retry_limit_in_match(kMatchLimit);
    });
    regex_t* code = nullptr;
    OnigErrorInfo info;
    const auto* begin = reinterpret_cast<const OnigUChar*>(pattern.data());
    const int error = onig_new(&code, begin, begin + pattern.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                               ONIG_SYNTAX_DEFAULT, &info);
    if (error != ONIG_NORMAL) {
      OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
      const int length = onig_error_code_to_str(reason, error, &info);
      return unsupported("regular expression " + std::string(pattern) + ": " +
                         std::string(reinterpret_cast<char*>(reason), static_cast<size_t>(length)));
    }
    return std::make_shared<const OnigurumaEngine>(code);
  }
  explicit OnigurumaEngine(regex_t* code) : code_(code) {}
  ~OnigurumaEngine() override { onig_free(code_); }

  Result<std::optional<Range>> search(std::string_view text, size_t from) const override {
    const auto* begin = reinterpret_cast<const OnigUChar*>(text.data());
    const auto* end = begin + text.size();
    OnigRegion region{};
    const int at = onig_search(code_, begin, end, begin + from, end, &region, ONIG_OPTION_NONE);
    std::optional<Range> range;
    if (at >= 0) range = Range{static_cast<size_t>(region.beg[0]), static_cast<size_t>(region.end[0])};
    onig_region_free(&region, 0);
    if (at < ONIG_MISMATCH)
      return resource_exhausted(
          "a regular expression of the tokenizer gave up on this text (Oniguruma error " +
          std::to_string(at) + ")");
    return range;
  }

 private:
  regex_t* code_;
};

// Escapes that mean the same to both engines.
bool is_common_escape(char c) {
  return std::string_view("pPsSdDrnt").find(c) != std::string_view::npos ||
         (static_cast<unsigned char>(c) < 0x80 && is_punctuation(static_cast<char32_t>(c)));
}

// Whether PCRE2 reads the pattern as Oniguruma does. Careful: what it does not know, it denies.
bool engines_agree(std::string_view pattern) {
  const auto has = [&](std::string_view part) { return pattern.find(part) != std::string_view::npos; };
  if (has("&&") || has("{,")) return false;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      if (++i == pattern.size() || !is_common_escape(pattern[i])) return false;
      const bool property = pattern[i] == 'p' || pattern[i] == 'P';
      if (property && pattern.substr(i + 1).starts_with('{'))
        i = std::min(pattern.find('}', i), pattern.size());
    } else if (c == '}' && !in_class && pattern.substr(i + 1).starts_with('+')) {
      return false;  // {n,m}+ is possessive in one engine only
    } else if (in_class) {
      if (c == '[') return false;  // a class inside a class
      if (c == ']') in_class = false;
    } else if (c == '[') {
      in_class = true;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') ++i;
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') return false;
    } else if (c == '^' || c == '$') {
      return false;  // line anchors in one engine, text anchors in the other
    } else if (c == '(' && i + 1 < pattern.size() && pattern[i + 1] == '?') {
      const std::string_view rest = pattern.substr(i + 2);
      const bool known = rest.starts_with(":") || rest.starts_with("=") || rest.starts_with("!") ||
                         rest.starts_with("<=") || rest.starts_with("<!") || rest.starts_with(">") ||
                         rest.starts_with("i:");
      if (!known) return false;
    }
  }
  return true;
}

// U+180E: a space to PCRE2, not to Oniguruma.
constexpr std::string_view kMongolianVowelSeparator = "\xE1\xA0\x8E";

}  // namespace

Result<Regex> Regex::compile(std::string_view pattern) {
  constexpr size_t kMaxPattern = 64 << 10;
  if (pattern.size() > kMaxPattern) return unsupported("a regular expression of more than 64 KiB");
  Regex regex;
  if (engines_agree(pattern)) regex.fast_ = PcreEngine::compile(pattern);
  TESSERA_ASSIGN_OR_RETURN(regex.exact_, OnigurumaEngine::compile(pattern));
  return regex;
}

Status Regex::for_each_match(std::string_view text, const OnMatch& on_match) const {
  const bool fast = fast_ != nullptr && text.find(kMongolianVowelSeparator) == std::string_view::npos;
  const Engine& engine = fast ? *fast_ : *exact_;
  size_t from = 0;
  std::optional<size_t> last_end;
  while (from <= text.size()) {
    TESSERA_ASSIGN_OR_RETURN(const auto match, engine.search(text, from));
    if (!match) return {};
    if (match->begin == match->end && last_end == match->end) {
      if (from == text.size()) return {};
      from += utf8_length(text[from]);
      continue;
    }
    TESSERA_RETURN_IF_ERROR(on_match(match->begin, match->end));
    from = match->end;
    last_end = match->end;
  }
  return {};
}

}  // namespace tessera::text
