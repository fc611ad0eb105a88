#include "text/unicode.h"

#include <gtest/gtest.h>

#include "text/regex.h"

namespace tessera::text {
namespace {

TEST(Unicode, NormalForms) {
  EXPECT_EQ(normalize("e\u0301", NormalForm::kNfc), "\u00e9");
  EXPECT_EQ(normalize("\u00e9", NormalForm::kNfd), "e\u0301");
  EXPECT_EQ(normalize("\ufb01\u2460", NormalForm::kNfkc), "fi1");
  EXPECT_EQ(normalize("\uac01", NormalForm::kNfd), "\u1100\u1161\u11a8");
  EXPECT_EQ(normalize("\u1100\u1161\u11a8", NormalForm::kNfc), "\uac01");
  EXPECT_EQ(normalize("\u212b", NormalForm::kNfc), "\u00c5");        // singleton
  EXPECT_EQ(normalize("\u0958", NormalForm::kNfc), "\u0915\u093c");  // composition exclusion
  EXPECT_EQ(normalize("a\u0323\u0307", NormalForm::kNfc), normalize("a\u0307\u0323", NormalForm::kNfc));
  EXPECT_EQ(normalize("plain", NormalForm::kNfkd), "plain");
}

TEST(Unicode, IncompleteTail) {
  const std::string smile = "\U0001F600";
  for (size_t n = 1; n < 4; ++n) EXPECT_EQ(incomplete_utf8_tail("x" + smile.substr(0, n)), n);
  EXPECT_EQ(incomplete_utf8_tail("x" + smile), 0u);
  EXPECT_EQ(incomplete_utf8_tail("\xE0\x80"), 0u);  // overlong: can never become a character
  EXPECT_EQ(incomplete_utf8_tail("\xED\xA0"), 0u);  // surrogate
  EXPECT_EQ(incomplete_utf8_tail("\xFF"), 0u);
  EXPECT_EQ(incomplete_utf8_tail("\x80"), 0u);
  EXPECT_EQ(incomplete_utf8_tail(""), 0u);
}

std::vector<std::string> matches(const char* pattern, std::string_view text) {
  auto regex = Regex::compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status().to_string();
  std::vector<std::string> found;
  const Status status = regex->for_each_match(text, [&](size_t begin, size_t end) {
    found.emplace_back(text.substr(begin, end - begin));
    return Status();
  });
  EXPECT_TRUE(status.ok()) << status.to_string();
  return found;
}

using Strings = std::vector<std::string>;

TEST(Regex, ReadsPatternsAsOnigurumaDoes) {
  EXPECT_EQ(matches(R"( ?\p{L}+|\s+)", "ab cd  e"), (Strings{"ab", " cd", "  ", "e"}));
  EXPECT_EQ(matches(R"([\p{L}&&[^a-c]]+)", "abxyzc"), (Strings{"xyz"}));  // class intersection
  EXPECT_EQ(matches(R"(^.)", "ab\ncd"), (Strings{"a", "c"}));             // line anchors
  EXPECT_EQ(matches(R"(\s+)", "a\u180eb c"), (Strings{" "}));             // no space
  EXPECT_EQ(matches(R"((?:a{1,2}+)a)", "aaa"), (Strings{"aaa"}));         // not possessive
  EXPECT_EQ(matches(R"(x*)", "axb"), (Strings{"", "x", ""}));             // none right behind a match
}

TEST(Regex, RefusesWhatItCannotRead) {
  EXPECT_EQ(Regex::compile("(").status().code(), Code::kUnsupported);
}

TEST(Regex, GivesUpInsteadOfHanging) {
  auto regex = Regex::compile(R"((?:a|aa|aaa)+[bc])");
  ASSERT_TRUE(regex.ok());
  const Status status = regex->for_each_match(std::string(60, 'a'), [](size_t, size_t) { return Status(); });
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace tessera::text
