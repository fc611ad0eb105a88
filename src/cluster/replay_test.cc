#include "cluster/replay.h"

#include <gtest/gtest.h>

namespace tessera::cluster {
namespace {

using Starts = std::vector<HopStart>;

TEST(PlanStarts, AFreshSessionComputesEverythingOnce) {
  EXPECT_EQ(plan_starts(std::vector<HopState>{{0, 0}, {0, 0}}, 5), (Starts{{0, 0}, {0, 0}}));
  EXPECT_EQ(plan_starts(std::vector<HopState>{{16, 0}}, 20), (Starts{{16, 16}}));
}

TEST(PlanStarts, OnlyTheSubstituteComputes) {
  // 100 tokens are committed, so every hop has computed 99 of them.
  EXPECT_EQ(plan_starts(std::vector<HopState>{{99, 0}, {0, 0}, {99, 0}}, 100),
            (Starts{{99, 0}, {0, 99}, {99, 99}}));
  EXPECT_EQ(plan_starts(std::vector<HopState>{{0, 0}, {99, 0}, {99, 0}}, 100),
            (Starts{{0, 99}, {99, 99}, {99, 99}}))
      << "a new head computes its own range from the tokens, nobody else anything";
  EXPECT_EQ(plan_starts(std::vector<HopState>{{99, 0}, {99, 0}, {0, 0}}, 100),
            (Starts{{99, 99}, {99, 0}, {0, 0}}));
}

TEST(PlanStarts, ASubstituteWithAPrefixGetsTheRestOnly) {
  EXPECT_EQ(plan_starts(std::vector<HopState>{{99, 0}, {64, 0}, {99, 0}}, 100),
            (Starts{{99, 64}, {64, 99}, {99, 99}}));
}

TEST(PlanStarts, LostOutputsAreComputedAgainAtABlockBoundary) {
  // Outputs before 40 are gone: the head computes again from there on what the substitute lacks.
  EXPECT_EQ(plan_starts(std::vector<HopState>{{99, 40}, {35, 0}, {99, 0}}, 100),
            (Starts{{32, 35}, {35, 99}, {99, 99}}));
  // The hop before has lost its outputs too: its predecessor replays.
  EXPECT_EQ(plan_starts(std::vector<HopState>{{99, 0}, {99, 90}, {0, 0}}, 100),
            (Starts{{99, 0}, {0, 0}, {0, 0}}));
}

TEST(PlanStarts, NobodyKeepsWhatIsNotCommitted) {
  // The tail had sampled a token that the gateway never got; the head had even begun the next row.
  EXPECT_EQ(plan_starts(std::vector<HopState>{{101, 0}, {100, 0}}, 100), (Starts{{100, 99}, {99, 99}}));
}

TEST(PlanStarts, LyingHopsGetNoNonsense) {
  for (int cached : {-5, 0, 7, 1 << 30})
    for (int from : {-5, 0, 7, 1 << 30})
      for (const HopStart& start : plan_starts(std::vector<HopState>{{cached, from}, {cached, from}}, 10)) {
        EXPECT_GE(start.start, 0);
        EXPECT_LE(start.start, 10);
        EXPECT_GE(start.send_from, 0);
        EXPECT_LE(start.send_from, 10);
      }
}

}  // namespace
}  // namespace tessera::cluster
