#include "gateway/reasoning.h"

#include <gtest/gtest.h>

namespace tessera::gateway {
namespace {

ReasoningSplitter::Out split(std::string_view prompt_tail, std::string_view text, size_t piece) {
  ReasoningSplitter splitter(prompt_tail);
  ReasoningSplitter::Out all;
  const auto add = [&all](const ReasoningSplitter::Out& out) {
    all.text += out.text;
    all.reasoning += out.reasoning;
  };
  for (size_t at = 0; at < text.size(); at += piece) add(splitter.push(text.substr(at, piece)));
  add(splitter.finish());
  return all;
}

TEST(ReasoningSplitter, SplitsHoweverTheTextIsCut) {
  for (size_t piece = 1; piece < 40; ++piece) {
    const auto out = split("assistant\n", "\n<think>\n1 < 2 </thin k\n</think>\n\nYes.</think>", piece);
    EXPECT_EQ(out.reasoning, "\n1 < 2 </thin k\n") << piece;
    EXPECT_EQ(out.text, "Yes.</think>") << piece;
  }
}

TEST(ReasoningSplitter, APromptMayOpenOrCloseTheThinking) {
  EXPECT_EQ(split("assistant\n<think>\n", "hm</think>ok", 2).reasoning, "hm");
  EXPECT_EQ(split("assistant\n<think>\n\n</think>\n\n", "<think> is a word", 3).text, "<think> is a word");
}

TEST(ReasoningSplitter, WithoutMarksEverythingIsAnswer) {
  EXPECT_EQ(split("", "  <thin ice", 4).text, "  <thin ice");
  EXPECT_EQ(split("", "<think>never closed", 4).reasoning, "never closed");
  EXPECT_EQ(split("", "<thi", 1).text, "<thi");
}

TEST(ReasoningSplitter, TellsTemplatesApart) {
  EXPECT_TRUE(ReasoningSplitter::template_marks_thinking("{{ '<think>\\n\\n</think>' }}"));
  EXPECT_FALSE(ReasoningSplitter::template_marks_thinking("{{ messages }}"));
}

}  // namespace
}  // namespace tessera::gateway
