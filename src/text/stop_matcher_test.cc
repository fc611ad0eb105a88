#include "text/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace tessera::text {
namespace {

struct Whole {
  std::string text;
  bool stopped;
};

Whole feed(const std::vector<std::string>& stops, const std::vector<std::string>& deltas) {
  StopMatcher matcher(stops);
  Whole whole{"", false};
  for (const std::string& delta : deltas) {
    const auto out = matcher.push(delta);
    whole.text += out.text;
    whole.stopped = out.stopped;
  }
  whole.text += matcher.finish();
  return whole;
}

// By definition: the first position where some stop ends, the longest of them.
Whole by_search(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (!stop.empty() && std::string_view(text).substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, CutsBeforeTheStop) {
  EXPECT_EQ(feed({"\n\n"}, {"one\n", "two\n", "\nthree"}).text, "one\ntwo");
  EXPECT_TRUE(feed({"\n\n"}, {"one\n", "two\n", "\nthree"}).stopped);
  EXPECT_EQ(feed({"END"}, {"the E", "N", "d"}).text, "the ENd");
  EXPECT_EQ(feed({}, {"a", "b"}).text, "ab");
  EXPECT_EQ(feed({""}, {"a", "b"}).text, "ab");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>"});
  EXPECT_EQ(matcher.push("abc<").text, "abc");
  EXPECT_EQ(matcher.push("b").text, "<b");
  EXPECT_EQ(matcher.push("</").text, "");
  EXPECT_EQ(matcher.push("<").text, "</");
  EXPECT_EQ(matcher.finish(), "<");
}

TEST(StopMatcher, NothingFollowsAStop) {
  StopMatcher matcher({"x"});
  EXPECT_TRUE(matcher.push("axb").stopped);
  const auto after = matcher.push("c");
  EXPECT_TRUE(after.stopped);
  EXPECT_EQ(after.text + matcher.finish(), "");
}

TEST(StopMatcher, AnyChunkingGivesTheSame) {
  std::mt19937 random(7);
  const auto word = [&](size_t longest) {
    std::string text(random() % (longest + 1), ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);  // few letters: many near misses
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = random() % 4; i > 0; --i) stops.push_back(word(6));
    const std::string text = word(30);
    std::vector<std::string> deltas;
    for (size_t at = 0; at < text.size();) {
      deltas.push_back(text.substr(at, random() % 4));
      at += deltas.back().size();
    }
    const Whole expected = by_search(stops, text), got = feed(stops, deltas);
    ASSERT_EQ(got.text, expected.text) << text;
    ASSERT_EQ(got.stopped, expected.stopped) << text;
  }
}

TEST(StopMatcher, UnarmedAStopIsText) {
  StopMatcher matcher({"ab"});
  StopMatcher::Out out = matcher.push("xab", /*armed=*/false);
  EXPECT_FALSE(out.stopped);
  EXPECT_EQ(out.text, "xab");
  EXPECT_EQ(matcher.push("ya", false).text, "y");
  out = matcher.push("bz");  // ends where it is armed: a stop
  EXPECT_TRUE(out.stopped);
  EXPECT_EQ(out.text, "");
}

}  // namespace
}  // namespace tessera::text
