#include "control/route_search.h"

#include <gtest/gtest.h>

namespace tessera::control {
namespace {

std::vector<std::string> names(const std::vector<RouteCandidate>& candidates,
                               const std::vector<size_t>& chain) {
  std::vector<std::string> result;
  for (size_t i : chain) result.push_back(candidates[i].worker);
  return result;
}

RouteCandidate on(const std::string& worker, int first, int last, double cost) {
  return {worker + "/i", worker, {first, last}, cost};
}

const auto kNoHops = [](const std::string&, const std::string&) { return 0.0; };

TEST(CheapestChain, CoversEveryBlockOnceAndInOrder) {
  const std::vector<RouteCandidate> all{on("c", 4, 6, 1), on("a", 0, 2, 1), on("b", 2, 4, 1),
                                        on("x", 1, 4, 0.1)};
  EXPECT_EQ(names(all, cheapest_chain(all, 6, kNoHops)), (std::vector<std::string>{"a", "b", "c"}));
}

TEST(CheapestChain, MixesCutsWhereThatIsCheaper) {
  const std::vector<RouteCandidate> all{on("a", 0, 3, 1), on("b", 3, 6, 5), on("whole", 0, 6, 4),
                                        on("c", 3, 6, 2)};
  EXPECT_EQ(names(all, cheapest_chain(all, 6, kNoHops)), (std::vector<std::string>{"a", "c"}));
}

TEST(CheapestChain, HopsCountAlsoTheWayBackToTheHead) {
  const std::vector<RouteCandidate> all{on("a", 0, 3, 1), on("near", 3, 6, 2), on("far", 3, 6, 1)};
  auto hops = [](const std::string& from, const std::string& to) {
    return from == "far" || to == "far" ? 0.7 : 0.1;  // 1 + 1 + 1.4 against 1 + 2 + 0.2
  };
  EXPECT_EQ(names(all, cheapest_chain(all, 6, hops)), (std::vector<std::string>{"a", "near"}));
}

TEST(CheapestChain, SaysWhereTheCoverEnds) {
  const std::vector<RouteCandidate> all{on("a", 0, 3, 1), on("b", 4, 6, 1), on("bad", 3, 9, 1)};
  int uncovered = -1;
  EXPECT_TRUE(cheapest_chain(all, 6, kNoHops, &uncovered).empty());
  EXPECT_EQ(uncovered, 3);
  EXPECT_TRUE(cheapest_chain({}, 6, kNoHops, &uncovered).empty());
  EXPECT_EQ(uncovered, 0);
}

TEST(CheapestChain, AThousandReplicasAreAFewCandidates) {
  std::vector<RouteCandidate> all;
  for (int i = 0; i < 1000; ++i)
    for (int range = 0; range < 4; ++range)
      all.push_back(
          on("w" + std::to_string(range) + "-" + std::to_string(i), range * 8, range * 8 + 8, 1 + i * 1e-3));
  int asked = 0;
  const auto chain = cheapest_chain(all, 32, [&asked](const std::string&, const std::string&) {
    ++asked;
    return 0.001;
  });
  EXPECT_EQ(chain.size(), 4u);
  EXPECT_EQ(all[chain[0]].worker, "w0-0");
  EXPECT_LE(asked, 3 * static_cast<int>(kRouteSearchWidth * kRouteSearchWidth + kRouteSearchWidth));
}

}  // namespace
}  // namespace tessera::control
