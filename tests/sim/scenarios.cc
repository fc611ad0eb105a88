#include "sim/scenarios.h"

namespace tessera::sim {
namespace {

using namespace std::chrono_literals;

void common(Random& random, ClusterOptions& options) {
  options.workers = static_cast<int>(random.pick(4, 6));
  options.blocks_per_worker = static_cast<int>(random.pick(2, 4));
  if (options.workers * options.blocks_per_worker < 12) options.blocks_per_worker = 3;
  options.wan = random.chance(25);
}

// Faults begin when the first requests are on their way and end before the last ones can.
constexpr Time kFaultsBegin = 200ms;
constexpr Time kFaultsEnd = 2500ms;

// Calls `fault` `count` times at random moments.
void often(Cluster& cluster, int count, std::function<void()> fault) {
  for (int i = 0; i < count; ++i) cluster.at(cluster.random().between(kFaultsBegin, kFaultsEnd), fault);
}

void load(Cluster& cluster, int cancelled_percent = 0) {
  cluster.add_requests(static_cast<int>(cluster.random().pick(6, 14)), 2s, cancelled_percent);
}

void crash(Cluster& cluster) {
  const std::string name = cluster.busy_worker();
  if (!name.empty()) cluster.crash(name, cluster.random().between(300ms, 4s));
}

void pause(Cluster& cluster) {
  const std::string name = cluster.busy_worker();
  if (!name.empty()) cluster.pause(name, cluster.random().between(100ms, 4s));
}

void restart_at_once(Cluster& cluster) {
  const std::string name = cluster.busy_worker();
  if (!name.empty()) cluster.crash(name, cluster.random().between(0ms, 30ms));
}

void partition(Cluster& cluster) {
  Random& random = cluster.random();
  const std::string name = cluster.busy_worker();
  if (name.empty()) return;
  std::string other = random.chance(50) ? kGatewayNode : random.one_of(cluster.living());
  if (other == name) other = kGatewayNode;
  const bool outwards = random.chance(50);
  cluster.partition(outwards ? name : other, outwards ? other : name, random.chance(40),
                    random.between(100ms, 5s));
}

void blip(Cluster& cluster) {
  Random& random = cluster.random();
  const std::string name = cluster.busy_worker();
  if (name.empty()) return;
  const std::string other = random.chance(50) ? kGatewayNode : random.one_of(cluster.living());
  if (other != name) cluster.blip(name, other);
}

void drain_one(Cluster& cluster) {
  const std::string name = cluster.busy_worker();
  if (name.empty() || cluster.living().size() < 4) return;
  cluster.drain(name);
  cluster.add_worker();
}

void restart_gateway(Cluster& cluster) {
  cluster.restart_gateway(cluster.random().between(50ms, 3s));
}

std::vector<Scenario> make_scenarios() {
  std::vector<Scenario> all;
  auto add = [&](std::string name, std::string what, auto configure, auto script) {
    all.push_back({std::move(name), std::move(what),
                   [configure](Random& random, ClusterOptions& options) {
                     common(random, options);
                     configure(random, options);
                   },
                   script});
  };
  auto plain = [](Random&, ClusterOptions&) {};
  auto faults = [](int least, int most, void (*fault)(Cluster&)) {
    return [=](Cluster& cluster) {
      load(cluster);
      often(cluster, static_cast<int>(cluster.random().pick(least, most)),
            [&cluster, fault] { fault(cluster); });
    };
  };
  add(
      "calm", "nothing goes wrong; workers differ", [](Random&, ClusterOptions& o) { o.uneven = true; },
      [](Cluster& cluster) { load(cluster); });
  add("crash", "workers die by SIGKILL and come back later", plain, faults(1, 4, crash));
  add("replace", "workers die for good, others join", plain, [](Cluster& cluster) {
    load(cluster);
    often(cluster, static_cast<int>(cluster.random().pick(1, 4)), [&cluster] {
      cluster.crash_for_good(cluster.busy_worker());
      cluster.at(cluster.random().between(0ms, 3s), [&cluster] { cluster.add_worker(); });
    });
  });
  add("pause", "workers stop longer than their lease and go on", plain, faults(1, 4, pause));
  add("restart", "workers restart with the same identity before anybody notices", plain,
      faults(1, 4, restart_at_once));
  add("partition", "links are cut, one way too", plain, faults(1, 4, partition));
  add("blips", "connections break and come back", plain, faults(3, 12, blip));
  add("gateway", "the gateway restarts; workers attach again", plain, faults(1, 2, restart_gateway));
  add(
      "recompute", "as crash, and no outputs are kept",
      [](Random&, ClusterOptions& o) { o.output_bytes = 0; }, faults(1, 3, crash));
  add(
      "tiny-kv", "KV for one or two sequences, while workers die",
      [](Random& random, ClusterOptions& o) { o.contexts_per_block = static_cast<int>(random.pick(1, 2)); },
      faults(0, 2, crash));
  add("drain", "workers are drained under load", plain, faults(1, 2, drain_one));
  add(
      "join", "the cluster begins with too few workers; others join",
      [](Random& random, ClusterOptions& o) {
        o.workers = static_cast<int>(random.pick(0, 2));
        o.uneven = random.chance(50);
      },
      [](Cluster& cluster) {
        load(cluster);
        for (int i = 0; i < 5; ++i)
          cluster.at(cluster.random().between(200ms, 6s), [&cluster] { cluster.add_worker(); });
      });
  add(
      "models", "two models; one is unloaded and loaded again under load",
      [](Random&, ClusterOptions& o) {
        o.second_model = true;
        o.workers += 2;
      },
      [](Cluster& cluster) {
        load(cluster);
        cluster.add_requests(4, 400ms, 0, "b");
        // Sessions have to end first: the gateway waits for them, as it promises.
        auto unload = std::make_shared<Task>();
        *unload = [&cluster, weak = std::weak_ptr<Task>(unload)] {
          const bool busy = std::any_of(
              cluster.requests().begin(), cluster.requests().end(),
              [](auto& client) { return client->model == "b" && client->outcome == Outcome::kPending; });
          if (busy) {
            cluster.at(200ms, [held = weak.lock()] { (*held)(); });
            return;
          }
          GatewayNode* gateway = cluster.gateway();
          cluster.world().queue.after(Time(0), gateway->process(), [gateway] { gateway->remove_model("b"); });
          cluster.at(cluster.random().between(100ms, 1s), [&cluster] {
            GatewayNode* again = cluster.gateway();
            cluster.world().queue.after(Time(0), again->process(), [again] { again->add_model("b"); });
            cluster.add_requests(3, 500ms, 0, "b");
          });
        };
        cluster.at(1s, [unload] { (*unload)(); });
        often(cluster, static_cast<int>(cluster.random().pick(0, 2)), [&cluster] { crash(cluster); });
      });
  add("cancel", "clients go away, workers die", plain, [](Cluster& cluster) {
    load(cluster, 60);
    often(cluster, 2, [&cluster] { crash(cluster); });
  });
  add(
      "load", "more requests than queues hold",
      [](Random&, ClusterOptions& o) {
        o.gateway.max_waiting = 12;
        o.worker_queue = 24;
        o.contexts_per_block = 2;
      },
      [](Cluster& cluster) { cluster.add_requests(40, 600ms); });
  add("slow-disk", "a substitute takes long to load", plain, [](Cluster& cluster) {
    load(cluster);
    cluster.at(100ms, [&cluster] { cluster.add_worker(Lie::kNone, 30e3); });
    often(cluster, 2, [&cluster] { crash(cluster); });
  });
  add("lies-range", "a worker reports other blocks than it hosts", plain, [](Cluster& cluster) {
    load(cluster);
    cluster.add_worker(Lie::kRange);
  });
  add("lies-forge", "a worker speaks to sessions of others and of old routes", plain, [](Cluster& cluster) {
    load(cluster);
    cluster.add_worker(Lie::kForge);
    often(cluster, 2, [&cluster] { blip(cluster); });
  });
  add(
      "lies-garbage", "a worker sends what makes no sense",
      [](Random&, ClusterOptions& o) { o.gateway.token_timeout = 5s; },
      [](Cluster& cluster) {
        load(cluster);
        cluster.world().checker.allowed = {Code::kInvalidArgument, Code::kDeadlineExceeded,
                                           Code::kUnavailable};
        cluster.add_worker(Lie::kGarbage);
      });
  add(
      "chaos", "everything that heals, at once",
      [](Random& random, ClusterOptions& o) {
        o.uneven = random.chance(30);
        o.workers += 2;
        o.drains_end = false;
        o.contexts_per_block = static_cast<int>(random.pick(2, 8));
      },
      [](Cluster& cluster) {
        load(cluster, 15);
        const std::vector<void (*)(Cluster&)> every{crash,     pause, restart_at_once, partition,
                                                    partition, blip,  drain_one,       restart_gateway};
        often(cluster, static_cast<int>(cluster.random().pick(3, 8)),
              [&cluster, every] { cluster.random().one_of(every)(cluster); });
      });
  return all;
}

}  // namespace

const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = make_scenarios();
  return all;
}

RunResult run_scenario(const Scenario& scenario, uint64_t seed, int workers, const Mutation& mutation) {
  Random random(seed * 0x9e3779b97f4a7c15u + 1);
  ClusterOptions options;
  scenario.configure(random, options);
  if (workers > 0) options.workers = workers;
  Cluster cluster(random.bits(), options);
  cluster.world().mutation = mutation;
  scenario.script(cluster);
  cluster.run();
  RunResult result;
  result.violations = cluster.world().checker.violations();
  result.trace = cluster.world().trace.hash();
  result.reopened = cluster.world().checker.reopened();
  if (cluster.gateway() != nullptr) result.failovers = cluster.gateway()->failovers();
  for (const std::string& name : cluster.living()) result.replayed += cluster.worker(name).counts().replayed;
  for (const auto& client : cluster.requests()) {
    ++result.requests;
    result.done += client->outcome == Outcome::kDone;
  }
  if (!result.violations.empty()) result.state = cluster.describe();
  return result;
}

}  // namespace tessera::sim
