#include "gateway/reasoning.h"

#include <algorithm>

namespace tessera::gateway {
namespace {

constexpr std::string_view kOpen = "<think>";
constexpr std::string_view kClose = "</think>";

// Length of the longest end of `text` that begins `mark`.
size_t partial_mark(std::string_view text, std::string_view mark) {
  for (size_t length = std::min(text.size(), mark.size() - 1); length > 0; --length)
    if (text.substr(text.size() - length) == mark.substr(0, length)) return length;
  return 0;
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

}  // namespace

bool ReasoningSplitter::template_marks_thinking(std::string_view source) {
  return source.find(kClose) != std::string_view::npos;
}

ReasoningSplitter::ReasoningSplitter(std::string_view prompt_tail) {
  while (!prompt_tail.empty() && is_space(prompt_tail.back())) prompt_tail.remove_suffix(1);
  if (prompt_tail.ends_with(kOpen)) state_ = State::kThinking;
  if (prompt_tail.ends_with(kClose)) state_ = State::kAnswer;  // thinking switched off by the template
}

ReasoningSplitter::Out ReasoningSplitter::push(std::string_view delta) {
  Out out;
  held_.append(delta);
  advance(out, false);
  return out;
}

ReasoningSplitter::Out ReasoningSplitter::finish() {
  Out out;
  advance(out, true);
  return out;
}

void ReasoningSplitter::advance(Out& out, bool last) {
  if (state_ == State::kStart) {
    size_t begin = 0;
    while (begin < held_.size() && is_space(held_[begin])) ++begin;
    const std::string_view rest = std::string_view(held_).substr(begin);
    if (rest.starts_with(kOpen)) {
      held_.erase(0, begin + kOpen.size());
      state_ = State::kThinking;
    } else if (!last && (rest.empty() || kOpen.starts_with(rest))) {
      return;  // undecided
    } else {
      state_ = State::kAnswer;
    }
  }
  if (state_ == State::kThinking) {
    const size_t close = held_.find(kClose);
    if (close == std::string::npos) {
      const size_t keep = last ? 0 : partial_mark(held_, kClose);
      out.reasoning.append(held_, 0, held_.size() - keep);
      held_.erase(0, held_.size() - keep);
      return;
    }
    out.reasoning.append(held_, 0, close);
    held_.erase(0, close + kClose.size());
    state_ = State::kAfter;
  }
  if (state_ == State::kAfter) {  // the blank line between thinking and answer belongs to neither
    size_t begin = 0;
    while (begin < held_.size() && is_space(held_[begin])) ++begin;
    held_.erase(0, begin);
    if (held_.empty()) return;
    state_ = State::kAnswer;
  }
  out.text.append(held_);
  held_.clear();
}

}  // namespace tessera::gateway
