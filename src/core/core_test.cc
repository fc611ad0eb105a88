#include <gtest/gtest.h>

#include <numeric>

#include "core/prefix_hash.h"
#include "core/types.h"

namespace tessera {
namespace {

TEST(BlockRanges, MustCoverOnceInOrder) {
  auto ranges = parse_block_ranges("0:2,2:5,5:30", 30);
  ASSERT_TRUE(ranges.ok());
  EXPECT_EQ((*ranges)[1], (BlockRange{2, 5}));
  for (const char* bad : {"", "0:30,", "0:29", "1:30", "0:5,6:30", "0:5,4:30", "0:0,0:30", "5", "a:b", "0:31",
                          "0:-1", "0:5 ,5:30"})
    EXPECT_FALSE(parse_block_ranges(bad, 30).ok()) << bad;
}

TEST(PrefixHash, ChainsOverFullBlocksAndDependsOnEverything) {
  std::vector<TokenId> tokens(40);
  std::iota(tokens.begin(), tokens.end(), 5);
  const PrefixExtra extra{"model", "", 0};
  const auto hashes = prefix_hashes(tokens, extra);
  ASSERT_EQ(hashes.size(), 2u);
  EXPECT_EQ(prefix_next(prefix_next(prefix_root(extra), std::span(tokens).first(16)),
                        std::span(tokens).subspan(16, 16)),
            hashes[1]);
  auto changed = tokens;
  changed[3] = 99;
  EXPECT_NE(prefix_hashes(changed, extra)[1], hashes[1]);
  EXPECT_NE(prefix_hashes(tokens, {"model", "tenant", 0})[0], hashes[0]);
  EXPECT_NE(prefix_hashes(tokens, {"modelt", "enant", 0})[0],
            prefix_hashes(tokens, {"model", "tenant", 0})[0]);
  EXPECT_NE(prefix_hashes(tokens, {"model", "", 1})[0], hashes[0]);
}

}  // namespace
}  // namespace tessera
