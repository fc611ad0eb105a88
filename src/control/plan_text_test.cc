#include "control/plan_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "control/placement_test_util.h"

namespace tessera::control {
namespace {

using ::testing::HasSubstr;

ClusterSnapshot example() {
  ClusterSnapshot snapshot{{plain_shape("m", 30), plain_shape("too-large", 300)},
                           {hosting(worker("alpha", 24, 100), "i7", "m", {0, 15}), worker("b", 24, 100)},
                           {}};
  return snapshot;
}

TEST(PlanText, TableHasALineForEachAssignmentAndTheReasons) {
  const ClusterSnapshot snapshot = example();
  const Plan plan = place(snapshot);
  const std::string text = plan_table(snapshot, plan);
  EXPECT_THAT(text, HasSubstr("WORKER  MODEL  BLOCKS"));
  EXPECT_THAT(text, HasSubstr("alpha   m      0:15"));
  EXPECT_THAT(text, HasSubstr("b       m      15:30"));
  EXPECT_THAT(text, HasSubstr("hosted\n"));
  EXPECT_THAT(text, HasSubstr("to load\n"));
  EXPECT_THAT(text, HasSubstr("151.00 ms"));  // 15.1 GB at 100 GB/s
  EXPECT_THAT(text, HasSubstr(plan.models[0].reason));
  EXPECT_THAT(text, HasSubstr("too-large: not served"));
}

TEST(PlanText, JsonCarriesTheSame) {
  const ClusterSnapshot snapshot = example();
  const Json json = plan_json(snapshot, place(snapshot));
  ASSERT_EQ(json["models"].size(), 2u);
  EXPECT_TRUE(json["models"][0]["served"]);
  EXPECT_FALSE(json["models"][1]["served"]);
  EXPECT_EQ(json["models"][0]["route"][1], Json({{"worker", "b"}, {"blocks", {15, 30}}}));
  ASSERT_EQ(json["assignments"].size(), 2u);
  EXPECT_EQ(json["assignments"][0]["instance"], "i7");
  EXPECT_TRUE(json["assignments"][1]["instance"].is_null());
  EXPECT_EQ(json["assignments"][0]["weight_bytes"], 151 * kGB / 10);
  EXPECT_GT(json["assignments"][0]["kv_tokens"], 1024);
}

TEST(PlanText, NothingToShow) {
  EXPECT_THAT(plan_table({}, {}), HasSubstr("no instance"));
  EXPECT_EQ(weight_bytes(plain_shape("m", 3), {2, 9}), 0u);
}

}  // namespace
}  // namespace tessera::control
