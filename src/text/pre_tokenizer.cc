#include "text/pre_tokenizer.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

using PreTokenizerPtr = std::unique_ptr<const PreTokenizer>;

constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What becomes of the matches of a delimiter.
enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Result<Behavior> read_behavior(const Json& json, Behavior fallback) {
  if (find_member(json, "behavior") == nullptr) return fallback;
  TESSERA_ASSIGN_OR_RETURN(const std::string name, read_string(json, "behavior"));
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return unsupported("tokenizer: a split behavior \"" + name + "\"");
}

// Turns the alternating gaps and matches of one text into pieces.
class Cutter {
 public:
  Cutter(Piece whole, Behavior behavior, const PieceSink& sink)
      : whole_(whole), behavior_(behavior), sink_(sink) {}

  Status add(size_t begin, size_t end, bool is_match) {
    if (begin == end && !is_match) return {};
    const bool joins =
        pending_ && ((behavior_ == Behavior::kMergedWithPrevious && is_match && !last_is_match_) ||
                     (behavior_ == Behavior::kMergedWithNext && !is_match && last_is_match_) ||
                     (behavior_ == Behavior::kContiguous && is_match == last_is_match_));
    last_is_match_ = is_match;
    if (joins) {
      pending_->second = end;
      return {};
    }
    TESSERA_RETURN_IF_ERROR(flush());
    if (!(behavior_ == Behavior::kRemoved && is_match)) pending_ = {begin, end};
    return {};
  }
  Status flush() {
    if (!pending_) return {};
    const auto [begin, end] = *pending_;
    pending_.reset();
    if (begin == end) return {};
    return sink_({whole_.text.substr(begin, end - begin), whole_.at_start && begin == 0});
  }

 private:
  Piece whole_;
  Behavior behavior_;
  const PieceSink& sink_;
  std::optional<std::pair<size_t, size_t>> pending_;
  bool last_is_match_ = false;
};

class PatternSplit final : public PreTokenizer {
 public:
  PatternSplit(TextPattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  Status split(Piece piece, const PieceSink& sink) const override {
    Cutter cutter(piece, behavior_, sink);
    size_t done = 0;
    TESSERA_RETURN_IF_ERROR(pattern_.for_each_match(piece.text, [&](size_t begin, size_t end) -> Status {
      if (done < begin) TESSERA_RETURN_IF_ERROR(cutter.add(done, begin, invert_));
      done = end;
      return cutter.add(begin, end, !invert_);
    }));
    if (done < piece.text.size()) TESSERA_RETURN_IF_ERROR(cutter.add(done, piece.text.size(), invert_));
    return cutter.flush();
  }

 private:
  TextPattern pattern_;
  Behavior behavior_;
  bool invert_;
};

// Splits at each character of a class.
class CharacterSplit final : public PreTokenizer {
 public:
  using Class = bool (*)(char32_t);
  CharacterSplit(Class is_delimiter, Behavior behavior) : is_delimiter_(is_delimiter), behavior_(behavior) {}
  Status split(Piece piece, const PieceSink& sink) const override {
    Cutter cutter(piece, behavior_, sink);
    size_t done = 0;
    for (size_t at = 0; at < piece.text.size();) {
      const size_t begin = at;
      if (!is_delimiter_(next_code_point(piece.text, at))) continue;
      TESSERA_RETURN_IF_ERROR(cutter.add(done, begin, false));
      TESSERA_RETURN_IF_ERROR(cutter.add(begin, at, true));
      done = at;
    }
    TESSERA_RETURN_IF_ERROR(cutter.add(done, piece.text.size(), false));
    return cutter.flush();
  }

 private:
  Class is_delimiter_;
  Behavior behavior_;
};

// Words, and runs of what is neither word nor space.
class WhitespaceSplit final : public PreTokenizer {
 public:
  Status split(Piece piece, const PieceSink& sink) const override {
    enum Kind { kSpace, kWord, kSymbol };
    const auto kind_of = [](char32_t c) {
      return is_word_character(c) ? kWord : is_whitespace(c) ? kSpace : kSymbol;
    };
    Kind run = kSpace;
    size_t begin = 0;
    for (size_t at = 0; at < piece.text.size();) {
      const size_t here = at;
      const Kind kind = kind_of(next_code_point(piece.text, at));
      if (kind == run) continue;
      if (run != kSpace)
        TESSERA_RETURN_IF_ERROR(sink({piece.text.substr(begin, here - begin), piece.at_start && begin == 0}));
      begin = here;
      run = kind;
    }
    if (run == kSpace || begin == piece.text.size()) return {};
    return sink({piece.text.substr(begin), piece.at_start && begin == 0});
  }
};

// Puts a space before a text that has none.
class PrefixSpace final : public PreTokenizer {
 public:
  Status split(Piece piece, const PieceSink& sink) const override {
    if (piece.text.front() == ' ') return sink(piece);
    return sink({" " + std::string(piece.text), piece.at_start});
  }
};

class ByteLevelAlphabet final : public PreTokenizer {
 public:
  Status split(Piece piece, const PieceSink& sink) const override {
    std::string encoded;
    append_byte_level(encoded, piece.text);
    return sink({encoded, piece.at_start});
  }
};

enum class PrependScheme { kAlways, kFirst, kNever };

class Metaspace final : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  Status split(Piece piece, const PieceSink& sink) const override {
    TESSERA_ASSIGN_OR_RETURN(std::string text,
                             replace_all(piece.text, TextPattern::literal(" "), replacement_));
    const bool prepend =
        scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && piece.at_start);
    if (prepend && !text.starts_with(replacement_)) text.insert(0, replacement_);
    const Piece whole{text, piece.at_start};
    if (!split_) return sink(whole);
    Cutter cutter(whole, Behavior::kMergedWithNext, sink);
    size_t done = 0;
    for (size_t at = text.find(replacement_); at != std::string::npos; at = text.find(replacement_, done)) {
      TESSERA_RETURN_IF_ERROR(cutter.add(done, at, false));
      done = at + replacement_.size();
      TESSERA_RETURN_IF_ERROR(cutter.add(at, done, true));
    }
    TESSERA_RETURN_IF_ERROR(cutter.add(done, text.size(), false));
    return cutter.flush();
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

Result<PreTokenizerPtr> parse_metaspace(const Json& json) {
  TESSERA_ASSIGN_OR_RETURN(const char32_t replacement, read_character(json, "replacement", 0x2581));
  TESSERA_ASSIGN_OR_RETURN(const bool add_prefix_space, read_bool(json, "add_prefix_space", true));
  TESSERA_ASSIGN_OR_RETURN(const std::string name,
                           read_string(json, "prepend_scheme", add_prefix_space ? "always" : "never"));
  TESSERA_ASSIGN_OR_RETURN(const bool split, read_bool(json, "split", true));
  PrependScheme scheme;
  if (name == "always") {
    scheme = PrependScheme::kAlways;
  } else if (name == "first") {
    scheme = PrependScheme::kFirst;
  } else if (name == "never") {
    scheme = PrependScheme::kNever;
  } else {
    return unsupported("tokenizer: a Metaspace prepend_scheme \"" + name + "\"");
  }
  std::string text;
  append_utf8(text, replacement);
  return PreTokenizerPtr(std::make_unique<Metaspace>(std::move(text), scheme, split));
}

Status add_regex_split(PreTokenizers& out, std::string_view pattern) {
  TESSERA_ASSIGN_OR_RETURN(Regex regex, Regex::compile(pattern));
  out.push_back(
      std::make_unique<PatternSplit>(TextPattern::regex(std::move(regex)), Behavior::kIsolated, false));
  return {};
}

Status add_byte_level(PreTokenizers& out, const Json& json) {
  TESSERA_ASSIGN_OR_RETURN(const bool add_prefix_space, read_bool(json, "add_prefix_space", true));
  TESSERA_ASSIGN_OR_RETURN(const bool use_regex, read_bool(json, "use_regex", true));
  if (add_prefix_space) out.push_back(std::make_unique<PrefixSpace>());
  if (use_regex) TESSERA_RETURN_IF_ERROR(add_regex_split(out, kGpt2Pattern));
  out.push_back(std::make_unique<ByteLevelAlphabet>());
  return {};
}

// What BERT counts as punctuation stands alone; spaces vanish.
void add_bert(PreTokenizers& out) {
  out.push_back(std::make_unique<CharacterSplit>(is_whitespace, Behavior::kRemoved));
  out.push_back(std::make_unique<CharacterSplit>(is_punctuation, Behavior::kIsolated));
}

Status add_stage(PreTokenizers& out, const Json& json) {
  if (json.is_null()) return {};
  TESSERA_ASSIGN_OR_RETURN(const std::string type, read_string(json, "type"));
  const auto add = [&](PreTokenizerPtr stage) {
    out.push_back(std::move(stage));
    return Status();
  };
  if (type == "Sequence") {
    const Json* list = find_member(json, "pretokenizers");
    if (list == nullptr || !list->is_array()) return corrupt("tokenizer: \"pretokenizers\" is not a list");
    for (const Json& entry : *list) TESSERA_RETURN_IF_ERROR(add_stage(out, entry));
    return {};
  }
  if (type == "ByteLevel") return add_byte_level(out, json);
  if (type == "Split") {
    TESSERA_ASSIGN_OR_RETURN(TextPattern pattern, TextPattern::parse(json, "pattern"));
    TESSERA_ASSIGN_OR_RETURN(const Behavior behavior, read_behavior(json, Behavior::kIsolated));
    TESSERA_ASSIGN_OR_RETURN(const bool invert, read_bool(json, "invert", false));
    return add(std::make_unique<PatternSplit>(std::move(pattern), behavior, invert));
  }
  if (type == "Metaspace") {
    TESSERA_ASSIGN_OR_RETURN(PreTokenizerPtr stage, parse_metaspace(json));
    return add(std::move(stage));
  }
  if (type == "Whitespace") return add(std::make_unique<WhitespaceSplit>());
  if (type == "WhitespaceSplit")
    return add(std::make_unique<CharacterSplit>(is_whitespace, Behavior::kRemoved));
  if (type == "Punctuation") {
    TESSERA_ASSIGN_OR_RETURN(const Behavior behavior, read_behavior(json, Behavior::kIsolated));
    return add(std::make_unique<CharacterSplit>(is_punctuation, behavior));
  }
  if (type == "Digits") {
    TESSERA_ASSIGN_OR_RETURN(const bool individual, read_bool(json, "individual_digits", false));
    return add(std::make_unique<CharacterSplit>(is_number,
                                                individual ? Behavior::kIsolated : Behavior::kContiguous));
  }
  if (type == "BertPreTokenizer") {
    add_bert(out);
    return {};
  }
  return unsupported("tokenizer: a pre_tokenizer of type \"" + type + "\"");
}

}  // namespace

Result<PreTokenizers> parse_pre_tokenizer(const Json& json) {
  PreTokenizers stages;
  TESSERA_RETURN_IF_ERROR(add_stage(stages, json));
  constexpr size_t kMaxStages = 32;
  if (stages.size() > kMaxStages) return unsupported("tokenizer: more than 32 pre-tokenizers");
  return stages;
}

Result<PreTokenizers> make_byte_level_pre_tokenizers(const std::vector<std::string>& patterns) {
  PreTokenizers stages;
  for (const std::string& pattern : patterns) TESSERA_RETURN_IF_ERROR(add_regex_split(stages, pattern));
  stages.push_back(std::make_unique<ByteLevelAlphabet>());
  return stages;
}

PieceSink chain_pre_tokenizers(const PreTokenizers& stages, const PieceSink& sink) {
  PieceSink next = [&sink](Piece piece) { return sink(piece); };
  for (size_t i = stages.size(); i-- > 0;) {
    next = [stage = stages[i].get(), inner = std::move(next)](Piece piece) {
      return stage->split(piece, inner);
    };
  }
  return next;
}

}  // namespace tessera::text
