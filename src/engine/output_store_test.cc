#include "engine/output_store.h"

#include <gtest/gtest.h>

namespace tessera::engine {
namespace {

constexpr int kHidden = 2;
constexpr uint64_t kPageBytes = kKvBlockTokens * kHidden * sizeof(float);

// Rows whose values are their positions.
std::vector<float> rows(int first, int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < kHidden; ++c) values.push_back(static_cast<float>(first + i));
  return values;
}

TEST(OutputStore, ReadsBackWhatItKeptInAnyPieces) {
  OutputStore store(8, kHidden, 100 * kPageBytes);
  const std::vector<kv::PageId> pages{5, 2, 7};
  store.keep(pages, 0, rows(0, 10));
  store.keep(pages, 10, rows(10, 30));
  EXPECT_EQ(store.kept_from(pages, 40), 0);
  std::vector<float> out;
  ASSERT_TRUE(store.read(pages, 3, 37, out));
  EXPECT_EQ(out, rows(3, 34));
  EXPECT_FALSE(store.read(pages, 3, 41, out)) << "40 was never kept";
  EXPECT_EQ(out.size(), size_t{34} * kHidden);
  const std::vector<kv::PageId> shares_the_first{5, 1};
  EXPECT_EQ(store.kept_from(shares_the_first, 16), 0);
  EXPECT_EQ(store.kept_from(shares_the_first, 20), 20);
}

TEST(OutputStore, AReusedPageForgetsAndAGapIsNotKept) {
  OutputStore store(8, kHidden, 100 * kPageBytes);
  const std::vector<kv::PageId> pages{3};
  store.keep(pages, 0, rows(0, 16));
  store.keep(pages, 0, rows(100, 4));  // another sequence writes the page anew
  EXPECT_EQ(store.kept_from(pages, 4), 0);
  EXPECT_EQ(store.kept_from(pages, 16), 16);
  store.keep(pages, 8, rows(108, 2));
  EXPECT_EQ(store.kept_from(pages, 10), 10);
  store.keep(pages, 2, rows(50, 1));  // cut back and computed again
  EXPECT_EQ(store.kept_from(pages, 3), 0);
  EXPECT_EQ(store.kept_from(pages, 4), 4);
}

TEST(OutputStore, TheLeastRecentlyUsedPageGoesFirst) {
  OutputStore store(8, kHidden, 2 * kPageBytes);
  const std::vector<kv::PageId> a{0}, b{1}, c{2};
  store.keep(a, 0, rows(0, 16));
  store.keep(b, 0, rows(0, 16));
  std::vector<float> out;
  ASSERT_TRUE(store.read(a, 0, 16, out));
  store.keep(c, 0, rows(0, 16));
  EXPECT_EQ(store.kept_from(a, 16), 0);
  EXPECT_EQ(store.kept_from(b, 16), 16);
  EXPECT_EQ(store.kept_from(c, 16), 0);
  EXPECT_EQ(store.bytes(), 2 * kPageBytes);
}

TEST(OutputStore, WithoutABudgetNothingIsKept) {
  OutputStore none(8, kHidden, 0);
  const std::vector<kv::PageId> pages{0};
  none.keep(pages, 0, rows(0, 16));
  EXPECT_EQ(none.kept_from(pages, 16), 16);
  std::vector<float> out;
  EXPECT_TRUE(none.read(pages, 4, 4, out));
  EXPECT_FALSE(none.read(pages, 0, 1, out));
}

}  // namespace
}  // namespace tessera::engine
