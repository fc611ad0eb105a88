#include "cluster/fair_share.h"

#include <gtest/gtest.h>

#include <set>

namespace tessera::cluster {
namespace {

// Requests that wait, by place; serve() hands out the first and moves the line.
class Line {
 public:
  void ask(const std::string& tenant, int64_t cost, int64_t weight = 1) {
    waiting_.insert({share_.take_place(tenant, cost, weight), ++arrivals_, tenant, cost});
  }
  // The tokens that each tenant got when `tokens` were served.
  std::map<std::string, int64_t> serve(int64_t tokens) {
    std::map<std::string, int64_t> got;
    while (tokens > 0 && !waiting_.empty()) {
      const auto [place, arrival, tenant, cost] = *waiting_.begin();
      waiting_.erase(waiting_.begin());
      share_.serve(place);
      got[tenant] += cost;
      tokens -= cost;
    }
    return got;
  }

 private:
  FairShare share_;
  uint64_t arrivals_ = 0;
  std::set<std::tuple<FairShare::Place, uint64_t, std::string, int64_t>> waiting_;
};

TEST(FairShare, AFloodDelaysAnotherTenantByOneRequestAtMost) {
  Line line;
  for (int i = 0; i < 1000; ++i) line.ask("flood", 100);
  line.serve(5000);
  line.ask("small", 10);
  EXPECT_EQ(line.serve(101)["small"], 10);
}

TEST(FairShare, TenantsGetEqualTokensHoweverTheyCutThem) {
  Line line;
  for (int i = 0; i < 1000; ++i) line.ask("long", 100);
  for (int i = 0; i < 10000; ++i) line.ask("short", 10);
  auto got = line.serve(50'000);
  EXPECT_NEAR(static_cast<double>(got["long"]), 25'000, 200);
  EXPECT_NEAR(static_cast<double>(got["short"]), 25'000, 200);
}

TEST(FairShare, WeightsDivideTheTokens) {
  Line line;
  for (int i = 0; i < 2000; ++i) {
    line.ask("one", 20, 1);
    line.ask("three", 20, 3);
  }
  auto got = line.serve(40'000);
  EXPECT_NEAR(static_cast<double>(got["three"]) / static_cast<double>(got["one"]), 3.0, 0.05);
}

TEST(FairShare, IdleTimeIsNotSavedUp) {
  Line line;
  for (int i = 0; i < 100; ++i) line.ask("busy", 100);
  line.ask("late", 100);
  line.serve(10'000);
  for (int i = 0; i < 100; ++i) {
    line.ask("late", 100);
    line.ask("busy", 100);
  }
  auto got = line.serve(10'000);
  EXPECT_NEAR(static_cast<double>(got["late"]), 5000, 200) << "not all of it";
}

TEST(FairShare, OneTenantIsServedInOrder) {
  FairShare share;
  FairShare::Place last = 0;
  for (int i = 0; i < 100; ++i) {
    const FairShare::Place place = share.take_place("t", i % 7, 1 + i % 3);
    EXPECT_GT(place, last);
    last = place;
    if (i % 5 == 0) share.serve(last);
  }
}

}  // namespace
}  // namespace tessera::cluster
