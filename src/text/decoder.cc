#include "text/decoder.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/utf8.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace tessera::text {
namespace {

using Kind = DecoderStep::Kind;

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";
constexpr std::string_view kEscapedSpace = "\xE2\x96\x81";  // U+2581

// English as WordPiece vocabularies were cut from it.
std::string clean_up(std::string text) {
  static constexpr std::array<std::array<std::string_view, 2>, 11> kRules{{{" .", "."},
                                                                           {" ?", "?"},
                                                                           {" !", "!"},
                                                                           {" ,", ","},
                                                                           {" ' ", "'"},
                                                                           {" n't", "n't"},
                                                                           {" 'm", "'m"},
                                                                           {" do not", " don't"},
                                                                           {" 's", "'s"},
                                                                           {" 've", "'ve"},
                                                                           {" 're", "'re"}}};
  for (const auto& [from, to] : kRules) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  }
  return text;
}

std::string strip_token(std::string_view text, const DecoderStep& step) {
  for (int32_t i = 0; i < step.left && text.starts_with(step.text); ++i) text.remove_prefix(step.text.size());
  for (int32_t i = 0; i < step.right && text.ends_with(step.text); ++i) text.remove_suffix(step.text.size());
  return std::string(text);
}

std::string spaces_for(std::string_view text, std::string_view replacement, std::string_view by) {
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(replacement); at != std::string_view::npos; at = text.find(replacement, done)) {
    out.append(text, done, at - done).append(by);
    done = at + replacement.size();
  }
  return out.append(text, done);
}

std::string wordpiece_token(std::string_view text, const DecoderStep& step, bool first) {
  std::string out;
  if (first) {
    out = text;
  } else if (!step.text.empty() && text.starts_with(step.text)) {
    out = text.substr(step.text.size());
  } else {
    out = " ";
    out.append(text);
  }
  return step.cleanup ? clean_up(std::move(out)) : out;
}

// One step at work, handing what it is sure of to the next one.
class Stage {
 public:
  Stage(const DecoderStep* step, bool joined) : step_(step), joined_(joined) {}

  // `emit(text)` receives whole tokens, or, behind a joining step, more of the one text.
  template <typename Emit>
  Status push(std::string_view text, const Emit& emit) {
    const bool first = first_;
    first_ = false;
    switch (step_->kind) {
      case Kind::kByteLevel:
        held_ += from_byte_level(text).value_or(std::string(text));
        return emit_complete(emit);
      case Kind::kFuse:
        held_ += text;
        return emit_complete(emit);
      case Kind::kByteFallback:
        if (const auto byte = byte_of_piece(text)) {
          held_.push_back(*byte);
          return {};
        }
        TESSERA_RETURN_IF_ERROR(flush_bytes(emit));
        return emit(text);
      case Kind::kMetaspace:
        return emit(spaces_for(text, step_->text, (first || joined_) && step_->drop_first ? "" : " "));
      case Kind::kReplace:
        return joined_ ? push_replace(text, emit) : emit_replaced(text, emit);
      case Kind::kStrip:
        return joined_ ? push_strip(text, emit) : emit(strip_token(text, *step_));
      case Kind::kWordPiece:
        return emit(wordpiece_token(text, *step_, first));
      case Kind::kJoinSpaces:
        return emit(first ? std::string(text) : " " + std::string(text));
    }
    return {};
  }

  template <typename Emit>
  Status finish(const Emit& emit) {
    switch (step_->kind) {
      case Kind::kByteLevel:
      case Kind::kFuse:
        return held_.empty() ? Status() : emit(replace_invalid_utf8(held_));
      case Kind::kByteFallback:
        return flush_bytes(emit);
      case Kind::kReplace:
        return joined_ ? emit_replaced(held_, emit) : Status();
      case Kind::kStrip: {
        if (!joined_) return {};
        std::string_view rest = held_;
        for (int32_t i = 0; i < step_->right && rest.ends_with(step_->text); ++i)
          rest.remove_suffix(step_->text.size());
        return emit(rest);
      }
      default:
        return {};
    }
  }

 private:
  // All but the beginning of a character at the end.
  template <typename Emit>
  Status emit_complete(const Emit& emit) {
    const size_t ready = held_.size() - incomplete_utf8_tail(held_);
    if (ready == 0) return {};
    const std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, ready));
    held_.erase(0, ready);
    return emit(text);
  }
  template <typename Emit>
  Status flush_bytes(const Emit& emit) {
    const std::string bytes = std::exchange(held_, {});
    if (bytes.empty()) return {};
    if (is_valid_utf8(bytes)) return emit(bytes);
    for (size_t i = 0; i < bytes.size(); ++i) TESSERA_RETURN_IF_ERROR(emit(kReplacementCharacter));
    return {};
  }
  template <typename Emit>
  Status emit_replaced(std::string_view text, const Emit& emit) {
    TESSERA_ASSIGN_OR_RETURN(const std::string replaced, replace_all(text, step_->pattern, step_->text));
    return emit(replaced);
  }
  // Holds back what may begin a match; everything, where the pattern is a regular expression.
  template <typename Emit>
  Status push_replace(std::string_view text, const Emit& emit) {
    held_ += text;
    const std::string* literal = step_->pattern.literal_text();
    if (literal == nullptr) return {};
    size_t ready = 0;
    for (size_t at = held_.find(*literal); at != std::string::npos; at = held_.find(*literal, ready))
      ready = at + literal->size();
    size_t tail = std::min(literal->size() - 1, held_.size() - ready);
    while (tail > 0 && held_.compare(held_.size() - tail, tail, *literal, 0, tail) != 0) --tail;
    const std::string sure = held_.substr(0, held_.size() - tail);
    held_.erase(0, sure.size());
    return emit_replaced(sure, emit);
  }
  // Drops the first `left` of the text, holds back the last `right`.
  template <typename Emit>
  Status push_strip(std::string_view text, const Emit& emit) {
    held_ += text;
    size_t begin = 0;
    while (stripped_ < step_->left && !left_done_) {
      if (held_.size() - begin < step_->text.size()) break;
      left_done_ = held_.compare(begin, step_->text.size(), step_->text) != 0;
      if (left_done_) break;
      begin += step_->text.size();
      ++stripped_;
    }
    held_.erase(0, begin);
    if (stripped_ < step_->left && !left_done_) return {};
    size_t ready = held_.size();
    for (int32_t i = 0; i < step_->right; ++i) {
      if (!std::string_view(held_).substr(0, ready).ends_with(step_->text)) break;
      ready -= step_->text.size();
    }
    const std::string sure = held_.substr(0, ready);
    held_.erase(0, ready);
    return emit(sure);
  }

  const DecoderStep* step_;
  bool joined_;        // an earlier step joined the tokens
  bool first_ = true;  // no token came yet
  bool left_done_ = false;
  int32_t stripped_ = 0;
  std::string held_;
};

class StagedStream final : public DecodeStream {
 public:
  explicit StagedStream(const std::vector<DecoderStep>& steps) {
    bool joined = false;
    for (const DecoderStep& step : steps) {
      stages_.emplace_back(&step, joined);
      joined = joined || step.kind == Kind::kFuse || step.kind == Kind::kByteLevel;
    }
  }
  Status push(std::string_view piece, std::string& out) override { return push_from(0, piece, out); }
  Status finish(std::string& out) override {
    for (size_t i = 0; i < stages_.size(); ++i) {
      TESSERA_RETURN_IF_ERROR(
          stages_[i].finish([&](std::string_view text) { return push_from(i + 1, text, out); }));
    }
    out += replace_invalid_utf8(tail_);
    tail_.clear();
    return {};
  }

 private:
  Status push_from(size_t i, std::string_view text, std::string& out) {
    if (i < stages_.size())
      return stages_[i].push(text, [&](std::string_view more) { return push_from(i + 1, more, out); });
    tail_ += text;
    const size_t ready = tail_.size() - incomplete_utf8_tail(tail_);
    out += replace_invalid_utf8(std::string_view(tail_).substr(0, ready));
    tail_.erase(0, ready);
    return {};
  }

  std::vector<Stage> stages_;
  std::string tail_;  // the beginning of a character
};

Status add_step(std::vector<DecoderStep>& steps, const Json& json) {
  if (json.is_null()) return {};
  TESSERA_ASSIGN_OR_RETURN(const std::string type, read_string(json, "type"));
  const bool joined = std::any_of(steps.begin(), steps.end(), [](const DecoderStep& step) {
    return step.kind == Kind::kFuse || step.kind == Kind::kByteLevel;
  });
  DecoderStep step;
  if (type == "Sequence") {
    const Json* list = find_member(json, "decoders");
    if (list == nullptr || !list->is_array()) return corrupt("tokenizer: \"decoders\" is not a list");
    for (const Json& entry : *list) TESSERA_RETURN_IF_ERROR(add_step(steps, entry));
    return {};
  }
  if (type == "Fuse") {
    if (joined) return {};
    step.kind = Kind::kFuse;
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    TESSERA_ASSIGN_OR_RETURN(step.pattern, TextPattern::parse(json, "pattern"));
    TESSERA_ASSIGN_OR_RETURN(step.text, read_string(json, "content"));
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    TESSERA_ASSIGN_OR_RETURN(const char32_t content, read_character(json, "content", ' '));
    append_utf8(step.text, content);
    TESSERA_ASSIGN_OR_RETURN(step.left, read_int(json, "start", 0));
    TESSERA_ASSIGN_OR_RETURN(step.right, read_int(json, "stop", 0));
  } else if (type == "Metaspace") {
    step.kind = Kind::kMetaspace;
    TESSERA_ASSIGN_OR_RETURN(const char32_t replacement, read_character(json, "replacement", 0x2581));
    append_utf8(step.text, replacement);
    TESSERA_ASSIGN_OR_RETURN(const bool prefix, read_bool(json, "add_prefix_space", true));
    TESSERA_ASSIGN_OR_RETURN(const std::string scheme,
                             read_string(json, "prepend_scheme", prefix ? "always" : "never"));
    step.drop_first = scheme != "never";
  } else if (joined) {
    return unsupported("tokenizer: a decoder of type \"" + type + "\" behind one that joins the tokens");
  } else if (type == "ByteLevel") {
    step.kind = Kind::kByteLevel;
  } else if (type == "ByteFallback") {
    step.kind = Kind::kByteFallback;
  } else if (type == "WordPiece") {
    step.kind = Kind::kWordPiece;
    TESSERA_ASSIGN_OR_RETURN(step.text, read_string(json, "prefix", "##"));
    TESSERA_ASSIGN_OR_RETURN(step.cleanup, read_bool(json, "cleanup", true));
  } else {
    return unsupported("tokenizer: a decoder of type \"" + type + "\"");
  }
  constexpr size_t kMaxSteps = 32;
  if (steps.size() == kMaxSteps) return unsupported("tokenizer: more than 32 decoders");
  steps.push_back(std::move(step));
  return {};
}

DecoderStep step_of(Kind kind) {
  DecoderStep step;
  step.kind = kind;
  return step;
}

}  // namespace

Result<Decoder> Decoder::parse(const Json& json) {
  Decoder decoder;
  if (json.is_null()) decoder.steps_.push_back(step_of(Kind::kJoinSpaces));
  TESSERA_RETURN_IF_ERROR(add_step(decoder.steps_, json));
  return decoder;
}

Decoder Decoder::byte_level() {
  Decoder decoder;
  decoder.steps_.push_back(step_of(Kind::kByteLevel));
  return decoder;
}

Decoder Decoder::sentencepiece(bool strip_first_space) {
  Decoder decoder;
  DecoderStep replace = step_of(Kind::kReplace);
  replace.pattern = TextPattern::literal(std::string(kEscapedSpace));
  replace.text = " ";
  decoder.steps_ = {replace, step_of(Kind::kByteFallback), step_of(Kind::kFuse)};
  if (strip_first_space) {
    DecoderStep strip = step_of(Kind::kStrip);
    strip.text = " ";
    strip.left = 1;
    decoder.steps_.push_back(strip);
  }
  return decoder;
}

std::unique_ptr<DecodeStream> Decoder::open() const {
  return std::make_unique<StagedStream>(steps_);
}

std::string Decoder::token_bytes(std::string_view piece) const {
  std::string text(piece);
  bool joined = false;
  for (const DecoderStep& step : steps_) {
    switch (step.kind) {
      case Kind::kByteLevel:
        text = from_byte_level(text).value_or(text);
        joined = true;
        break;
      case Kind::kFuse:
        joined = true;
        break;
      case Kind::kByteFallback:
        if (const auto byte = byte_of_piece(text)) text = *byte;
        break;
      case Kind::kMetaspace:
        text = spaces_for(text, step.text, joined && step.drop_first ? "" : " ");
        break;
      case Kind::kReplace:
        if (auto replaced = replace_all(text, step.pattern, step.text); replaced.ok())
          text = *std::move(replaced);
        break;
      case Kind::kStrip:
        if (!joined) text = strip_token(text, step);
        break;
      case Kind::kWordPiece:
        text = wordpiece_token(text, step, false);
        break;
      case Kind::kJoinSpaces:
        text = " " + text;
        break;
    }
  }
  return text;
}

}  // namespace tessera::text
