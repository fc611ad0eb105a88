// sim_cluster: thousands of schedules of the simulated cluster. Prints each failing seed; one seed gives the
// same run, bit for bit.
#include <fmt/core.h>

#include <chrono>
#include <cstring>

#include "obs/log.h"
#include "sim/arguments.h"
#include "sim/scenarios.h"

namespace tessera::sim {
namespace {

constexpr const char* kUsage =
    "usage: sim_cluster --seeds A:B [--scenario NAME|all] [--workers N] [--log LEVEL] [--list]\n"
    "  seeds A to B - 1; `all` takes the scenarios in turn, seed by seed\n";

struct Arguments {
  uint64_t first = 0, last = 0;
  std::string scenario = "all";
  int workers = 0;
  std::string log = "off";
  bool list = false;
};

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--list") {
      arguments.list = true;
      continue;
    }
    if (++i == argc) return false;
    const std::string_view value = argv[i];
    if (name == "--seeds") {
      const size_t colon = value.find(':');
      if (colon == std::string_view::npos || !parse_number(value.substr(0, colon), arguments.first) ||
          !parse_number(value.substr(colon + 1), arguments.last))
        return false;
    } else if (name == "--scenario") {
      arguments.scenario = value;
    } else if (name == "--workers") {
      if (!parse_number(value, arguments.workers) || arguments.workers < 1) return false;
    } else if (name == "--log") {
      arguments.log = value;
    } else {
      return false;
    }
  }
  return arguments.list || arguments.last > arguments.first;
}

int run(const Arguments& arguments) {
  std::vector<const Scenario*> chosen;
  for (const Scenario& scenario : scenarios())
    if (arguments.scenario == "all" || arguments.scenario == scenario.name) chosen.push_back(&scenario);
  if (chosen.empty()) {
    fmt::print(stderr, "no scenario named {}; --list prints them\n", arguments.scenario);
    return 2;
  }
  const auto begin = std::chrono::steady_clock::now();
  int failed = 0;
  RunResult sum;
  Trace trace;
  for (uint64_t seed = arguments.first; seed < arguments.last; ++seed) {
    const Scenario& scenario = *chosen[seed % chosen.size()];
    const RunResult result = run_scenario(scenario, seed, arguments.workers);
    trace.add(result.trace);
    sum.requests += result.requests;
    sum.done += result.done;
    sum.failovers += result.failovers;
    sum.reopened += result.reopened;
    sum.replayed += result.replayed;
    if (result.violations.empty()) continue;
    ++failed;
    fmt::print("FAILED  --seeds {}:{} --scenario {}  trace {:016x}\n", seed, seed + 1,
               arguments.scenario == "all" ? "all" : scenario.name, result.trace);
    fmt::print("  scenario {}: {}\n", scenario.name, scenario.what);
    for (const std::string& violation : result.violations) fmt::print("  {}\n", violation);
    fmt::print("  {}\n", result.state);
    std::fflush(stdout);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print(
      "{} schedules in {:.1f} s ({:.0f}/s): {} failed; {} of {} requests whole, {} failovers, {} routes "
      "opened "
      "again, {} rows replayed; trace {:016x}\n",
      arguments.last - arguments.first, seconds,
      static_cast<double>(arguments.last - arguments.first) / seconds, failed, sum.done, sum.requests,
      sum.failovers, sum.reopened, sum.replayed, trace.hash());
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace tessera::sim

int main(int argc, char** argv) {
  tessera::sim::Arguments arguments;
  if (!tessera::sim::parse(argc, argv, arguments)) {
    fmt::print(stderr, "{}", tessera::sim::kUsage);
    return 2;
  }
  if (arguments.list) {
    for (const tessera::sim::Scenario& scenario : tessera::sim::scenarios())
      fmt::print("{:14} {}\n", scenario.name, scenario.what);
    return 0;
  }
  const auto level = tessera::obs::parse_level(arguments.log);
  if (!level.ok()) {
    fmt::print(stderr, "{}\n", level.status().message());
    return 2;
  }
  if (auto status = tessera::obs::configure_logging({*level, tessera::obs::LogFormat::kText, ""});
      !status.ok())
    return 2;
  return tessera::sim::run(arguments);
}
