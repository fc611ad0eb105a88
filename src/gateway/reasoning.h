// Splits a model's thinking from its answer where the chat template says how (<think> … </think>).
#pragma once

#include <string>
#include <string_view>

namespace tessera::gateway {

// Feed text as it comes; each call returns what is certain by then. One thread.
class ReasoningSplitter {
 public:
  struct Out {
    std::string text;
    std::string reasoning;
  };
  // Does this template mark thinking?
  static bool template_marks_thinking(std::string_view template_source);
  // `prompt_tail`: the end of the rendered prompt, which may already have opened the thinking.
  explicit ReasoningSplitter(std::string_view prompt_tail);

  Out push(std::string_view delta);
  Out finish();

 private:
  enum class State { kStart, kThinking, kAfter, kAnswer };
  void advance(Out& out, bool last);

  State state_ = State::kStart;
  std::string held_;
};

}  // namespace tessera::gateway
