#include "control/lockout.h"

#include <gtest/gtest.h>

#include "store/test_util.h"

namespace tessera::control {
namespace {

TEST(Lockout, FiveFailuresLockTheIdentityFromThatAddressForAQuarterOfAnHour) {
  store::ManualClock clock;
  const auto state = store::make_memory_state(clock);
  Lockout lockout(*state);
  for (int i = 1; i < 5; ++i) EXPECT_FALSE(lockout.failed("ann", "10.0.0.1")) << i;
  EXPECT_FALSE(lockout.locked("ann", "10.0.0.1"));
  EXPECT_TRUE(lockout.failed("ann", "10.0.0.1"));
  EXPECT_TRUE(lockout.locked("ann", "10.0.0.1"));
  EXPECT_FALSE(lockout.locked("ann", "10.0.0.2"));
  EXPECT_FALSE(lockout.locked("bob", "10.0.0.1"));
  EXPECT_FALSE(lockout.locked("ann/10.0.0.1", "")) << "parts do not run into each other";
  clock.advance(std::chrono::minutes(15) - std::chrono::milliseconds(1));
  EXPECT_TRUE(lockout.locked("ann", "10.0.0.1"));
  clock.advance(std::chrono::milliseconds(2));
  EXPECT_FALSE(lockout.locked("ann", "10.0.0.1"));
}

TEST(Lockout, SuccessForgetsFailures) {
  store::ManualClock clock;
  const auto state = store::make_memory_state(clock);
  Lockout lockout(*state);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) EXPECT_FALSE(lockout.failed("ann", "a"));
    lockout.succeeded("ann", "a");
  }
  EXPECT_FALSE(lockout.locked("ann", "a"));
}

}  // namespace
}  // namespace tessera::control
