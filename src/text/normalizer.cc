#include "text/normalizer.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

using NormalizerPtr = std::unique_ptr<const Normalizer>;

// A normalizer that needs no more than a function of the text.
template <typename Function>
class SimpleNormalizer final : public Normalizer {
 public:
  explicit SimpleNormalizer(Function function) : function_(std::move(function)) {}
  Status apply(std::string& text, bool) const override {
    text = function_(text);
    return {};
  }

 private:
  Function function_;
};
template <typename Function>
NormalizerPtr simple(Function function) {
  return std::make_unique<SimpleNormalizer<Function>>(std::move(function));
}

template <typename Keep>
std::string keep_if(std::string_view text, Keep keep) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (keep(c)) append_utf8(out, c);
  }
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) append_lower(out, next_code_point(text, at));
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    size_t at = begin;
    if (!is_whitespace(next_code_point(text, at))) break;
    begin = at;
  }
  while (right && end > begin) {
    size_t at = end - 1;
    while (at > begin && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
    size_t after = at;
    if (!is_whitespace(next_code_point(text, after))) break;
    end = at;
  }
  return std::string(text.substr(begin, end - begin));
}

struct BertRules {
  bool clean_text, chinese_characters, strip_accents, lowercase;
};

std::string bert_normalize(std::string_view text, BertRules rules) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    char32_t c = next_code_point(text, at);
    if (rules.clean_text) {
      const bool space = c == '\t' || c == '\n' || c == '\r' || is_whitespace(c);
      if (c == 0 || c == 0xFFFD || (is_other(c) && c != '\t' && c != '\n' && c != '\r')) continue;
      if (space) c = ' ';
    }
    const bool apart = rules.chinese_characters && is_cjk_ideograph(c);
    if (apart) out.push_back(' ');
    append_utf8(out, c);
    if (apart) out.push_back(' ');
  }
  if (rules.strip_accents)
    out = keep_if(normalize(out, NormalForm::kNfd), [](char32_t c) { return !is_nonspacing_mark(c); });
  return rules.lowercase ? lower(out) : out;
}

class ReplaceNormalizer final : public Normalizer {
 public:
  ReplaceNormalizer(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Status apply(std::string& text, bool) const override {
    TESSERA_ASSIGN_OR_RETURN(text, replace_all(text, pattern_, content_));
    return {};
  }

 private:
  TextPattern pattern_;
  std::string content_;
};

class SequenceNormalizer final : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<NormalizerPtr> steps) : steps_(std::move(steps)) {}
  Status apply(std::string& text, bool at_start) const override {
    for (const auto& step : steps_) TESSERA_RETURN_IF_ERROR(step->apply(text, at_start));
    return {};
  }

 private:
  std::vector<NormalizerPtr> steps_;
};

// The map applied to whole grapheme clusters where they are short and known, else to single characters.
class PrecompiledNormalizer final : public Normalizer {
 public:
  PrecompiledNormalizer(Charsmap map, Regex grapheme)
      : map_(std::move(map)), grapheme_(std::move(grapheme)) {}
  Status apply(std::string& text, bool) const override {
    std::string out;
    out.reserve(text.size());
    TESSERA_RETURN_IF_ERROR(grapheme_.for_each_match(text, [&](size_t begin, size_t end) -> Status {
      const std::string_view cluster = std::string_view(text).substr(begin, end - begin);
      constexpr size_t kMaxCluster = 5;  // bytes
      if (cluster.size() <= kMaxCluster && append_mapped(out, cluster)) return {};
      for (size_t at = 0; at < cluster.size();) {
        const size_t length = utf8_length(cluster[at]);
        const std::string_view character = cluster.substr(at, length);
        if (!append_mapped(out, character)) out.append(character);
        at += length;
      }
      if (out.size() > kMaxNormalizedBytes)
        return resource_exhausted("the text grows too much when normalized");
      return {};
    }));
    text = std::move(out);
    return {};
  }

 private:
  bool append_mapped(std::string& out, std::string_view part) const {
    const auto match = map_.shortest_prefix(part);
    if (!match) return false;
    out.append(match->replacement);
    return true;
  }
  Charsmap map_;
  Regex grapheme_;
};

Result<std::vector<uint8_t>> decode_base64(std::string_view text) {
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int count = 0;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  for (const char c : text) {
    const auto digit =
        std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    if (digit == std::string_view::npos) return corrupt("tokenizer: precompiled_charsmap is not base64");
    bits = (bits << 6 | static_cast<uint32_t>(digit)) & 0xFFFFFF;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<uint8_t>(bits >> count));
    }
  }
  return bytes;
}

Result<NormalizerPtr> parse_precompiled(const Json& json) {
  TESSERA_ASSIGN_OR_RETURN(const std::string encoded, read_string(json, "precompiled_charsmap", ""));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<uint8_t> blob, decode_base64(encoded));
  TESSERA_ASSIGN_OR_RETURN(Charsmap map, Charsmap::parse(blob));
  TESSERA_ASSIGN_OR_RETURN(Regex grapheme, Regex::compile("\\X"));
  return NormalizerPtr(std::make_unique<PrecompiledNormalizer>(std::move(map), std::move(grapheme)));
}

Result<NormalizerPtr> parse_bert(const Json& json) {
  BertRules rules{};
  TESSERA_ASSIGN_OR_RETURN(rules.clean_text, read_bool(json, "clean_text", true));
  TESSERA_ASSIGN_OR_RETURN(rules.chinese_characters, read_bool(json, "handle_chinese_chars", true));
  TESSERA_ASSIGN_OR_RETURN(rules.lowercase, read_bool(json, "lowercase", true));
  TESSERA_ASSIGN_OR_RETURN(rules.strip_accents, read_bool(json, "strip_accents", rules.lowercase));
  return simple([rules](const std::string& text) { return bert_normalize(text, rules); });
}

Result<NormalizerPtr> parse_sequence(const Json& json) {
  const Json* list = find_member(json, "normalizers");
  if (list == nullptr || !list->is_array()) return corrupt("tokenizer: \"normalizers\" is not a list");
  std::vector<NormalizerPtr> steps;
  for (const Json& entry : *list) {
    TESSERA_ASSIGN_OR_RETURN(NormalizerPtr step, parse_normalizer(entry));
    if (step != nullptr) steps.push_back(std::move(step));
  }
  return NormalizerPtr(std::make_unique<SequenceNormalizer>(std::move(steps)));
}

}  // namespace

NormalizerPtr make_nfc_normalizer() {
  return simple([](const std::string& text) { return normalize(text, NormalForm::kNfc); });
}

Result<NormalizerPtr> parse_normalizer(const Json& json) {
  if (json.is_null()) return NormalizerPtr();
  TESSERA_ASSIGN_OR_RETURN(const std::string type, read_string(json, "type"));
  const auto form = [](NormalForm f) {
    return simple([f](const std::string& text) { return normalize(text, f); });
  };
  if (type == "NFC") return make_nfc_normalizer();
  if (type == "NFD") return form(NormalForm::kNfd);
  if (type == "NFKC") return form(NormalForm::kNfkc);
  if (type == "NFKD") return form(NormalForm::kNfkd);
  if (type == "Sequence") return parse_sequence(json);
  if (type == "Precompiled") return parse_precompiled(json);
  if (type == "BertNormalizer") return parse_bert(json);
  if (type == "Lowercase") return simple([](const std::string& text) { return lower(text); });
  if (type == "StripAccents")
    return simple(
        [](const std::string& text) { return keep_if(text, [](char32_t c) { return !is_mark(c); }); });
  if (type == "Strip") {
    TESSERA_ASSIGN_OR_RETURN(const bool left, read_bool(json, "strip_left", true));
    TESSERA_ASSIGN_OR_RETURN(const bool right, read_bool(json, "strip_right", true));
    return simple([left, right](const std::string& text) { return strip(text, left, right); });
  }
  if (type == "Prepend") {
    TESSERA_ASSIGN_OR_RETURN(std::string prefix, read_string(json, "prepend"));
    return simple([prefix](const std::string& text) { return text.empty() ? text : prefix + text; });
  }
  if (type == "Replace") {
    TESSERA_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::parse(json, "pattern"));
    TESSERA_ASSIGN_OR_RETURN(std::string content, read_string(json, "content"));
    return NormalizerPtr(std::make_unique<ReplaceNormalizer>(std::move(pattern), std::move(content)));
  }
  if (type == "ByteLevel")
    return simple([](const std::string& text) {
      std::string out;
      append_byte_level(out, text);
      return out;
    });
  return unsupported("tokenizer: a normalizer of type \"" + type + "\"");
}

}  // namespace tessera::text
