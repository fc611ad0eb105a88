#include "worker/external/supervisor.h"

#include <gmock/gmock.h>
#include <signal.h>

#include <mutex>

namespace tessera::worker::external {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

TEST(SplitCommand, AsAShellDoes) {
  EXPECT_THAT(*split_command("python -m  server --port 1"),
              ElementsAre("python", "-m", "server", "--port", "1"));
  EXPECT_THAT(*split_command(R"(sh -c 'exec "$0" x' "a b" c\ d '' "q\"q")"),
              ElementsAre("sh", "-c", R"(exec "$0" x)", "a b", "c d", "", "q\"q"));
  EXPECT_FALSE(split_command("a 'b").ok());
  EXPECT_FALSE(split_command("  ").ok());
}

template <typename F>
bool eventually(F condition) {
  for (int i = 0; i < 600; ++i, std::this_thread::sleep_for(50ms))
    if (condition()) return true;
  return false;
}

SupervisorOptions options(std::vector<std::string> command) {
  SupervisorOptions o;
  o.command = std::move(command);
  o.name = "test";
  o.first_backoff = 10ms;
  o.longest_backoff = 20ms;
  o.stop_time = 300ms;
  return o;
}

TEST(Supervisor, StartsAgainWhatEndsAndSaysWhy) {
  std::mutex mutex;
  std::vector<std::string> reasons;
  const auto heard = [&](const std::string& why) {
    std::lock_guard lock(mutex);
    reasons.push_back(why);
  };
  {
    Supervisor supervisor(options({"sh", "-c", "echo out of memory; exit 3"}), heard);
    ASSERT_TRUE(eventually([&] { return supervisor.restarts() >= 2; }));
  }
  std::lock_guard lock(mutex);
  EXPECT_THAT(reasons.at(0), HasSubstr("status 3"));
  EXPECT_THAT(reasons.at(0), HasSubstr("out of memory"));
}

TEST(Supervisor, AMissingProgramIsNamed) {
  std::mutex mutex;
  std::string reason;
  Supervisor supervisor(options({"/no/such/program"}), [&](const std::string& why) {
    std::lock_guard lock(mutex);
    reason = why;
  });
  ASSERT_TRUE(eventually([&] {
    std::lock_guard lock(mutex);
    return !reason.empty();
  }));
  std::lock_guard lock(mutex);
  EXPECT_THAT(reason, HasSubstr("/no/such/program cannot be run"));
}

TEST(Supervisor, EndsTheProcessAndWhatItStartedAlsoWhenTheyDoNotWantTo) {
  pid_t pid = 0;
  {
    Supervisor supervisor(options({"sh", "-c", "trap '' TERM; sleep 1000 & while :; do sleep 0.05; done"}),
                          [](const std::string&) {});
    ASSERT_TRUE(eventually([&] { return supervisor.pid() > 0; }));
    pid = supervisor.pid();
    EXPECT_EQ(::kill(-pid, 0), 0);
  }
  EXPECT_TRUE(eventually([&] { return ::kill(-pid, 0) != 0; })) << "its group is gone";
}

TEST(Supervisor, AHungProcessIsKilledAndStartedAgain) {
  Supervisor supervisor(options({"sleep", "1000"}), [](const std::string&) {});
  ASSERT_TRUE(eventually([&] { return supervisor.pid() > 0; }));
  const pid_t first = supervisor.pid();
  supervisor.kill_hung();
  EXPECT_TRUE(eventually([&] { return supervisor.pid() > 0 && supervisor.pid() != first; }));
}

}  // namespace
}  // namespace tessera::worker::external
