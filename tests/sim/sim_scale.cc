// sim_scale: what the control plane costs as a cluster grows. The product's session, routing, membership and
// failover code serves simulated workers (real engines over a toy model) that crash and come back, and the
// gateway's tasks are metered: processor time, and the heap that they hold.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "obs/log.h"
#include "sim/arguments.h"
#include "sim/cluster.h"
#include "sim/heap_meter.h"

namespace tessera::sim {
namespace {

using namespace std::chrono_literals;

constexpr const char* kUsage =
    "usage: sim_scale [--workers N,…] [--sessions N] [--seconds N] [--churn PERCENT] [--seed N] [--json "
    "FILE]\n"
    "  for each number of workers: sessions spread over simulated seconds (10,000 over 60), while a share "
    "of\n"
    "  the workers (5) crashes and comes back every minute. Exit 1: a session was lost, or a figure that no\n"
    "  neighbour's load can disturb was missed.\n";

constexpr double kMostBytesPerWorker = 50e3;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class GatewayMeter final : public TaskMeter {
 public:
  void run(const Task& task) override {
    HeapMeter::on = true;
    const double begin = thread_seconds();
    task();
    const double spent = thread_seconds() - begin;
    HeapMeter::on = false;
    seconds_ += spent;
    longest_ = std::max(longest_, spent);
    most_bytes_ = std::max(most_bytes_, HeapMeter::bytes);
  }
  double seconds() const { return seconds_; }
  double longest() const { return longest_; }
  int64_t most_bytes() const { return most_bytes_; }

 private:
  double seconds_ = 0, longest_ = 0;
  int64_t most_bytes_ = 0;
};

struct Arguments {
  std::vector<int> workers{1000};
  int sessions = 10'000, seconds = 60, churn = 5;
  uint64_t seed = 1;
  std::string json;
};

struct Figures {
  int workers = 0;
  double joined_s = 0;    // of the gateway's processor time, for all workers to join and be placed
  double idle_s = 0;      // for a second without sessions: heartbeats and leases
  double session_ms = 0;  // everything that the run cost, for each session opened
  double longest_ms = 0;  // one task: so long nothing else is answered
  double worker_kb = 0;   // heap with every worker joined and no session
  double peak_mb = 0;     // with sessions
  int crashes = 0, lost = 0;
  int64_t failovers = 0;
  double wall_s = 0;
};

Figures measure(const Arguments& arguments, int workers) {
  const auto begin = std::chrono::steady_clock::now();
  GatewayMeter meter;
  const int64_t before = HeapMeter::bytes;
  ClusterOptions options;
  options.workers = workers;
  options.uneven = true;
  options.wan = true;  // sessions last for seconds, so that crashes meet them
  options.gateway_meter = &meter;
  options.gateway.lease = 3000ms;
  options.gateway.max_waiting = 1 << 20;
  Figures figures;
  figures.workers = workers;
  {
    Cluster cluster(arguments.seed, options);
    EventQueue& queue = cluster.world().queue;
    while (queue.run_one(20s)) {
    }
    figures.joined_s = meter.seconds();
    figures.worker_kb = static_cast<double>(HeapMeter::bytes - before) / 1e3 / workers;
    while (queue.run_one(30s)) {
    }
    figures.idle_s = (meter.seconds() - figures.joined_s) / 10;
    const Time spread = std::chrono::seconds(arguments.seconds);
    cluster.add_requests(arguments.sessions, spread);
    figures.crashes =
        static_cast<int>(static_cast<int64_t>(workers) * arguments.churn * arguments.seconds / 6000);
    for (int i = 0; i < figures.crashes; ++i)
      cluster.at(cluster.random().between(Time(0), spread),
                 [&cluster] { cluster.crash(cluster.random().one_of(cluster.living()), 3s); });
    const double idle = meter.seconds();
    cluster.run();
    figures.session_ms = 1e3 * (meter.seconds() - idle) / arguments.sessions;
    figures.longest_ms = 1e3 * meter.longest();
    figures.peak_mb = static_cast<double>(meter.most_bytes() - before) / 1e6;
    figures.failovers = cluster.gateway() != nullptr ? cluster.gateway()->failovers() : 0;
    for (const auto& client : cluster.requests()) figures.lost += client->outcome != Outcome::kDone;
    for (const std::string& violation : cluster.world().checker.violations()) {
      fmt::print(stderr, "  {}\n", violation);
      ++figures.lost;
    }
  }
  figures.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return figures;
}

bool parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    std::string_view value = argv[i + 1];
    if (name == "--workers") {
      arguments.workers.clear();
      while (!value.empty()) {
        const size_t comma = std::min(value.find(','), value.size());
        int count = 0;
        if (!parse_number(value.substr(0, comma), count) || count < 1) return false;
        arguments.workers.push_back(count);
        value.remove_prefix(std::min(comma + 1, value.size()));
      }
    } else if (name == "--json") {
      arguments.json = value;
    } else if (name == "--seed") {
      if (!parse_number(value, arguments.seed)) return false;
    } else {
      int* number = name == "--sessions"  ? &arguments.sessions
                    : name == "--seconds" ? &arguments.seconds
                    : name == "--churn"   ? &arguments.churn
                                          : nullptr;
      if (number == nullptr || !parse_number(value, *number) || *number < 0) return false;
    }
  }
  return argc % 2 == 1 && !arguments.workers.empty() && arguments.sessions > 0 && arguments.seconds > 0;
}

int run(const Arguments& arguments) {
  std::FILE* json = arguments.json.empty() ? nullptr : std::fopen(arguments.json.c_str(), "w");
  if (json == nullptr && !arguments.json.empty()) {
    fmt::print(stderr, "cannot write {}\n", arguments.json);
    return 2;
  }
  bool failed = false;
  fmt::print("{:>7} {:>10} {:>12} {:>13} {:>12} {:>10} {:>8} {:>10} {:>9} {:>5}\n", "workers", "join, s",
             "idle, ms/s", "session, ms", "longest, ms", "KB/worker", "peak MB", "crashes", "failovers",
             "lost");
  if (json != nullptr)
    fmt::print(json, "{{\"sessions\": {}, \"seconds\": {}, \"churn_percent_per_minute\": {}, \"rows\": [",
               arguments.sessions, arguments.seconds, arguments.churn);
  const char* comma = "";
  for (int workers : arguments.workers) {
    const Figures f = measure(arguments, workers);
    failed |= f.lost > 0 || f.worker_kb * 1e3 > kMostBytesPerWorker;
    fmt::print("{:>7} {:>10.2f} {:>12.2f} {:>13.3f} {:>12.1f} {:>10.1f} {:>8.1f} {:>10} {:>9} {:>5}\n",
               f.workers, f.joined_s, 1e3 * f.idle_s, f.session_ms, f.longest_ms, f.worker_kb, f.peak_mb,
               f.crashes, f.failovers, f.lost);
    std::fflush(stdout);
    if (json != nullptr)
      fmt::print(
          json,
          "{}\n {{\"workers\": {}, \"join_s\": {:.4f}, \"idle_ms_per_s\": {:.3f}, \"session_ms\": {:.4f}, "
          "\"longest_task_ms\": {:.2f}, \"kb_per_worker\": {:.2f}, \"peak_mb\": {:.2f}, \"crashes\": {}, "
          "\"failovers\": {}, \"lost\": {}, \"wall_s\": {:.1f}}}",
          comma, f.workers, f.joined_s, 1e3 * f.idle_s, f.session_ms, f.longest_ms, f.worker_kb, f.peak_mb,
          f.crashes, f.failovers, f.lost, f.wall_s);
    comma = ",";
  }
  if (json != nullptr) {
    fmt::print(json, "\n]}}\n");
    std::fclose(json);
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace tessera::sim

int main(int argc, char** argv) {
  tessera::sim::Arguments arguments;
  if (!tessera::sim::parse(argc, argv, arguments)) {
    fmt::print(stderr, "{}", tessera::sim::kUsage);
    return 2;
  }
  if (!tessera::obs::configure_logging(
           {*tessera::obs::parse_level("off"), tessera::obs::LogFormat::kText, ""})
           .ok())
    return 2;
  return tessera::sim::run(arguments);
}
