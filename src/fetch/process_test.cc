#include "fetch/process.h"

#include <gtest/gtest.h>

namespace tessera::fetch {
namespace {

TEST(Process, ReturnsStatusAndOutput) {
  auto result = run_process({"sh", "-c", "echo out; echo err >&2; exit 3"}, std::chrono::seconds(20));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->exit_status, 3);
  EXPECT_EQ(result->output, "out\nerr\n");
  result = run_process({"sh", "-c", "kill -9 $$"}, std::chrono::seconds(20));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->exit_status, 128 + 9);
}

TEST(Process, PassesArgumentsAsTheyAre) {
  auto result = run_process({"printf", "%s", "a b; $HOME"}, std::chrono::seconds(20));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->output, "a b; $HOME");
}

TEST(Process, KeepsTheEndOfLongOutput) {
  auto result =
      run_process({"sh", "-c", "i=0; while [ $i -lt 40000 ]; do echo 123456789; i=$((i+1)); done; echo end"},
                  std::chrono::seconds(60));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->output.size(), size_t{64} << 10);
  EXPECT_TRUE(result->output.ends_with("end\n"));
}

TEST(Process, KillsWhatDoesNotEnd) {
  const auto start = std::chrono::steady_clock::now();
  auto result = run_process({"sh", "-c", "sleep 60 & wait"}, std::chrono::seconds(1));
  EXPECT_EQ(result.status().code(), Code::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_EQ(run_process({"no-such-program-anywhere"}, std::chrono::seconds(1)).status().code(),
            Code::kNotFound);
}

}  // namespace
}  // namespace tessera::fetch
