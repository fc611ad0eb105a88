#include "base/det_math.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(DetMath, CloseToTheLibrary) {
  for (double x = 1e-300; x < 1e300; x *= 1.7) {
    EXPECT_NEAR(det_log(x), std::log(x), 4e-16 * std::max(1.0, std::fabs(std::log(x)))) << x;
  }
  for (double x = -700; x < 700; x += 0.37) EXPECT_NEAR(det_exp(x) / std::exp(x), 1.0, 1e-15) << x;
  for (int i = 0; i < 64; ++i) EXPECT_NEAR(det_pow(1e6, i / 64.0) / std::pow(1e6, i / 64.0), 1.0, 1e-14) << i;
}

TEST(DetMath, Edges) {
  EXPECT_EQ(det_log(1.0), 0.0);
  EXPECT_EQ(det_exp(0.0), 1.0);
  EXPECT_EQ(det_pow(10000.0, 0.0), 1.0);
  EXPECT_TRUE(std::isnan(det_log(0.0)));
  EXPECT_TRUE(std::isnan(det_log(-1.0)));
  EXPECT_TRUE(std::isnan(det_log(std::numeric_limits<double>::infinity())));
  EXPECT_TRUE(std::isinf(det_exp(1000.0)));
  EXPECT_EQ(det_exp(-1000.0), 0.0);
  EXPECT_TRUE(std::isnan(det_exp(std::numeric_limits<double>::quiet_NaN())));
}

}  // namespace
}  // namespace tessera
