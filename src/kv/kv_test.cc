#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/prefix_hash.h"
#include "kv/block_index.h"
#include "kv/block_pool.h"
#include "kv/prefix_tree.h"

namespace tessera::kv {
namespace {

std::vector<Digest> hashes_of(std::vector<TokenId> tokens, const std::string& salt = "") {
  return prefix_hashes(tokens, {"model", salt, 0});
}

std::vector<TokenId> counting(int first, int count) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(first + i);
  return tokens;
}

// Fills a page for every full block, as a sequence that ran these tokens does.
void run_sequence(BlockPool& pool, PrefixTree& tree, PageTable& table, const std::vector<TokenId>& tokens) {
  const std::vector<Digest> hashes = hashes_of(tokens);
  for (PageId page : tree.match(hashes)) table.append(page);
  for (int32_t i = 0; i < static_cast<int32_t>(hashes.size()); ++i) {
    if (i >= table.size()) {
      auto page = pool.take();
      while (!page && tree.evict_one()) page = pool.take();
      ASSERT_TRUE(page.has_value());
      table.append(*page);
    }
    const PageId parent = i == 0 ? -1 : table[i - 1];
    const PageId canonical = tree.insert(parent, hashes[static_cast<size_t>(i)], table[i]);
    if (canonical != table[i]) table.replace(i, canonical);
  }
}

// Digests of which many share the bytes that decide where they go.
Digest crowded(uint8_t crowd, uint8_t which) {
  Digest digest{};
  digest[0] = crowd;
  digest[31] = which;
  return digest;
}

TEST(BlockIndex, FindsWhatAnOrdinaryMapFinds) {
  constexpr int32_t kPages = 61;
  BlockIndex index(kPages);
  std::map<Digest, PageId> expected;
  std::vector<std::optional<Digest>> held(kPages);
  std::mt19937 random(1);
  for (int step = 0; step < 20000; ++step) {
    const auto page = static_cast<PageId>(random() % kPages);
    std::optional<Digest>& digest = held[static_cast<size_t>(page)];
    if (digest) {
      EXPECT_TRUE(index.holds(page));
      index.erase(page);
      expected.erase(*digest);
      digest.reset();
    } else {
      const Digest fresh = crowded(random() % 5, random() % 64);
      auto [at, added] = expected.try_emplace(fresh, page);
      EXPECT_EQ(index.find_or_add(fresh, page), added ? -1 : at->second);
      if (added) digest = fresh;
    }
    const Digest asked = crowded(random() % 5, random() % 64);
    const auto at = expected.find(asked);
    ASSERT_EQ(index.find(asked), at == expected.end() ? -1 : at->second) << "after step " << step;
    ASSERT_EQ(index.size(), static_cast<int32_t>(expected.size()));
  }
  for (const auto& [digest, page] : expected) EXPECT_EQ(index.find(digest), page);
}

TEST(BlockPool, PagesAreFreeUsedOrCached) {
  BlockPool pool(3);
  const PageId a = *pool.take(), b = *pool.take();
  EXPECT_EQ(pool.used(), 2);
  pool.ref(a);
  pool.unref(a);
  EXPECT_EQ(pool.used(), 2);
  pool.keep(a);
  pool.unref(a);
  EXPECT_EQ(pool.cached(), 1);
  pool.unref(b);
  EXPECT_EQ(pool.free(), 2);
  EXPECT_TRUE(pool.check());
  pool.drop(a);
  EXPECT_EQ(pool.free(), 3);
  EXPECT_TRUE(pool.check());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.take().has_value());
  EXPECT_FALSE(pool.take().has_value());
}

TEST(BlockPoolDeathTest, AMisusedPageEndsTheProcess) {
  BlockPool pool(1);
  const PageId page = *pool.take();
  pool.unref(page);
  EXPECT_DEATH(pool.unref(page), "given back twice");
  EXPECT_DEATH(pool.ref(page), "free page");
}

TEST(PrefixTree, FindsTheLongestPrefixAndNothingElse) {
  BlockPool pool(16);
  PrefixTree tree(pool, make_lru_policy());
  {
    PageTable table(pool);
    run_sequence(pool, tree, table, counting(0, 50));
    EXPECT_EQ(table.size(), 3);
  }
  EXPECT_EQ(pool.cached(), 3);
  std::vector<TokenId> half = counting(0, 40);
  half[35] = 999;
  PageTable table(pool);
  for (PageId page : tree.match(hashes_of(half))) table.append(page);
  EXPECT_EQ(table.size(), 2);
  EXPECT_TRUE(tree.match(hashes_of(counting(1, 40))).empty());
  EXPECT_TRUE(tree.match(hashes_of(counting(0, 40), "other tenant")).empty());
  EXPECT_EQ(pool.used(), 2);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_TRUE(pool.check() && tree.check());
}

TEST(PrefixTree, EqualBlocksShareOnePage) {
  BlockPool pool(8);
  PrefixTree tree(pool, make_lru_policy());
  PageTable first(pool), second(pool);
  for (int i = 0; i < 2; ++i) second.append(*pool.take());  // ran at the same time: no hit when it opened
  run_sequence(pool, tree, first, counting(0, 32));
  const std::vector<Digest> hashes = hashes_of(counting(0, 32));
  for (int32_t i = 0; i < 2; ++i) {
    const PageId page = tree.insert(i == 0 ? -1 : second[i - 1], hashes[static_cast<size_t>(i)], second[i]);
    EXPECT_EQ(page, first[i]);
    second.replace(i, page);
  }
  EXPECT_EQ(pool.used(), 2);
  EXPECT_EQ(pool.free(), 6);
  EXPECT_TRUE(pool.check() && tree.check());
}

TEST(PrefixTree, EvictsTheLeastRecentlyUsedLeafFirst) {
  BlockPool pool(6);
  PrefixTree tree(pool, make_lru_policy());
  auto run = [&](int first, int count) {
    PageTable table(pool);
    run_sequence(pool, tree, table, counting(first, count));
  };
  run(0, 48);     // 3 pages
  run(1000, 32);  // 2 pages
  run(0, 32);     // touches the first two of the first sequence: its third is now the oldest
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(tree.match(hashes_of(counting(0, 48))).size(), 2u);  // holds them from here on
  EXPECT_TRUE(tree.evict_one());
  EXPECT_TRUE(tree.evict_one());
  EXPECT_FALSE(tree.evict_one()) << "referenced pages must stay";
  EXPECT_TRUE(tree.match(hashes_of(counting(1000, 32))).empty());
  EXPECT_EQ(pool.used(), 2);
  EXPECT_EQ(pool.free(), 4);
  EXPECT_TRUE(pool.check() && tree.check());
}

TEST(PrefixTree, StormKeepsEveryPageAccountedFor) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    BlockPool pool(64);
    PrefixTree tree(pool, make_lru_policy());
    std::vector<std::unique_ptr<PageTable>> open;
    for (int i = 0; i < 300; ++i) {
      if (open.size() < 6 && random() % 2 == 0) {
        open.push_back(std::make_unique<PageTable>(pool));
        std::vector<TokenId> tokens =
            counting(static_cast<int>(random() % 3) * 1000, 16 * (1 + random() % 8));
        if (random() % 2 == 0) tokens[random() % tokens.size()] = 7;
        run_sequence(pool, tree, *open.back(), tokens);
      } else if (!open.empty()) {
        std::swap(open[random() % open.size()], open.back());
        open.pop_back();
      }
      ASSERT_TRUE(pool.check() && tree.check()) << "seed " << seed << " step " << i;
    }
    open.clear();
    while (tree.evict_one()) {
    }
    EXPECT_EQ(pool.free(), pool.total());
    EXPECT_EQ(tree.size(), 0);
  }
}

}  // namespace
}  // namespace tessera::kv
