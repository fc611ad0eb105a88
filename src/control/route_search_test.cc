#include "control/route_search.h"

#include <gtest/gtest.h>

#include <tuple>

namespace tessera::control {
namespace {

// Candidates, and the workers that they stand for.
struct Offers {
  std::vector<RouteCandidate> candidates;
  std::vector<std::string> workers;

  Offers() = default;
  Offers(std::initializer_list<std::tuple<std::string, int, int, double>> list) {
    for (const auto& [worker, first, last, cost] : list) add(worker, first, last, cost);
  }
  void add(const std::string& worker, int first, int last, double cost) {
    candidates.push_back({{first, last}, cost});
    workers.push_back(worker);
  }
  std::vector<std::string> names(const std::vector<size_t>& chain) const {
    std::vector<std::string> result;
    for (size_t i : chain) result.push_back(workers[i]);
    return result;
  }
};

const auto kNoHops = [](size_t, size_t) { return 0.0; };

TEST(CheapestChain, CoversEveryBlockOnceAndInOrder) {
  const Offers all{{"c", 4, 6, 1}, {"a", 0, 2, 1}, {"b", 2, 4, 1}, {"x", 1, 4, 0.1}};
  EXPECT_EQ(all.names(cheapest_chain(all.candidates, 6, kNoHops)), (std::vector<std::string>{"a", "b", "c"}));
}

TEST(CheapestChain, MixesCutsWhereThatIsCheaper) {
  const Offers all{{"a", 0, 3, 1}, {"b", 3, 6, 5}, {"whole", 0, 6, 4}, {"c", 3, 6, 2}};
  EXPECT_EQ(all.names(cheapest_chain(all.candidates, 6, kNoHops)), (std::vector<std::string>{"a", "c"}));
}

TEST(CheapestChain, HopsCountAlsoTheWayBackToTheHead) {
  const Offers all{{"a", 0, 3, 1}, {"near", 3, 6, 2}, {"far", 3, 6, 1}};
  auto hops = [&all](size_t from, size_t to) {
    return all.workers[from] == "far" || all.workers[to] == "far" ? 0.7
                                                                  : 0.1;  // 1 + 1 + 1.4 against 1 + 2 + 0.2
  };
  EXPECT_EQ(all.names(cheapest_chain(all.candidates, 6, hops)), (std::vector<std::string>{"a", "near"}));
}

TEST(CheapestChain, SaysWhereTheCoverEnds) {
  const Offers all{{"a", 0, 3, 1}, {"b", 4, 6, 1}, {"bad", 3, 9, 1}};
  int uncovered = -1;
  EXPECT_TRUE(cheapest_chain(all.candidates, 6, kNoHops, &uncovered).empty());
  EXPECT_EQ(uncovered, 3);
  EXPECT_TRUE(cheapest_chain({}, 6, kNoHops, &uncovered).empty());
  EXPECT_EQ(uncovered, 0);
}

TEST(CheapestChain, AThousandReplicasAreAFewCandidates) {
  Offers all;
  for (int i = 0; i < 1000; ++i)
    for (int range = 0; range < 4; ++range)
      all.add("w" + std::to_string(range) + "-" + std::to_string(i), range * 8, range * 8 + 8, 1 + i * 1e-3);
  int asked = 0;
  const auto chain = cheapest_chain(all.candidates, 32, [&asked](size_t, size_t) {
    ++asked;
    return 0.001;
  });
  EXPECT_EQ(chain.size(), 4u);
  EXPECT_EQ(all.workers[chain[0]], "w0-0");
  EXPECT_LE(asked, 3 * static_cast<int>(kRouteSearchWidth * kRouteSearchWidth + kRouteSearchWidth));
}

}  // namespace
}  // namespace tessera::control
