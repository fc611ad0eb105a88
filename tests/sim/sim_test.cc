// The simulation itself: a seed is a run, the reference is the engine's, and bugs are found.
#include <gtest/gtest.h>

#include "engine/test_cluster.h"
#include "obs/log.h"
#include "sim/mutations.h"
#include "sim/scenarios.h"

namespace tessera::sim {
namespace {

class Sim : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(obs::configure_logging({obs::Level::kOff, obs::LogFormat::kText, ""}).ok());
  }
};

TEST_F(Sim, ASeedGivesTheSameRunBitForBit) {
  std::set<uint64_t> traces;
  for (const Scenario& scenario : scenarios()) {
    const RunResult first = run_scenario(scenario, 77), second = run_scenario(scenario, 77);
    EXPECT_EQ(first.trace, second.trace) << scenario.name;
    EXPECT_EQ(first.violations, second.violations) << scenario.name;
    traces.insert(first.trace);
    traces.insert(run_scenario(scenario, 78).trace);
  }
  EXPECT_EQ(traces.size(), 2 * scenarios().size()) << "seeds and scenarios must make a difference";
}

TEST_F(Sim, FaultsReachTheCodeThatHandlesThem) {
  int64_t failovers = 0, replayed = 0, reopened = 0;
  for (const Scenario& scenario : scenarios())
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const RunResult result = run_scenario(scenario, seed);
      failovers += result.failovers;
      replayed += result.replayed;
      reopened += result.reopened;
    }
  EXPECT_GT(failovers, 20);
  EXPECT_GT(replayed, 100);
  EXPECT_GT(reopened, 50);
}

TEST_F(Sim, TheReferenceIsTheEnginesExpectedOutput) {
  const engine::toy::ToyOptions toy;
  for (const auto& [prompt, params] : engine::toy::mixed_requests(5, 12)) {
    const Answer answer = reference_answer({prompt, params, "", 0}, toy);
    const auto [tokens, finish] = engine::toy::expected_output(prompt, params, toy);
    std::vector<TokenId> ours;
    for (const SampledToken& token : answer.tokens) ours.push_back(token.token);
    EXPECT_EQ(ours, tokens);
    EXPECT_EQ(answer.finish, finish);
  }
}

class SimMutations : public Sim, public ::testing::WithParamInterface<size_t> {};

TEST_P(SimMutations, IsFound) {
  constexpr uint64_t kSeeds = 40;
  const NamedMutation& bug = mutations()[GetParam()];
  const auto scenario = std::find_if(scenarios().begin(), scenarios().end(),
                                     [&](const Scenario& s) { return s.name == bug.scenario; });
  ASSERT_NE(scenario, scenarios().end());
  for (uint64_t seed = 0; seed < kSeeds; ++seed)
    if (!run_scenario(*scenario, seed, 0, bug.make()).violations.empty()) {
      RecordProperty("seed", static_cast<int>(seed));
      return;
    }
  FAIL() << bug.name << " was not found in " << kSeeds << " seeds of " << bug.scenario;
}

INSTANTIATE_TEST_SUITE_P(Bugs, SimMutations, ::testing::Range(size_t{0}, mutations().size()),
                         [](const auto& info) {
                           std::string name = mutations()[info.param].name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tessera::sim
