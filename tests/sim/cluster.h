// Cluster: gateway, workers and clients of one run, the faults that a scenario may inject, and what is
// checked at its end.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "sim/gateway_node.h"
#include "sim/worker_node.h"

namespace tessera::sim {

struct ClusterOptions {
  int workers = 5;
  int blocks_per_worker = 3;   // memory, in blocks of the model with their KV
  int contexts_per_block = 8;  // of KV that memory has room for beside the weights
  bool second_model = false;
  bool wan = false;
  bool uneven = false;  // memory and speed differ
  uint64_t output_bytes = uint64_t{1} << 24;
  GatewaySpec gateway;
  size_t worker_queue = 4096;
  bool drains_end = true;  // false: faults may make the gateway forget that it drained somebody
  TaskMeter* gateway_meter = nullptr;
};

class Cluster {
 public:
  Cluster(uint64_t seed, const ClusterOptions& options);
  ~Cluster();

  World& world() { return world_; }
  Random& random() { return world_.random; }
  const ClusterOptions& options() const { return options_; }

  // --- load ---
  // `count` requests that begin within `spread`; a share of them in percent is cancelled on the way.
  void add_requests(int count, Time spread, int cancelled_percent = 0, const std::string& model = "a");
  bool all_ended();

  // --- members ---
  std::string add_worker(Lie lie = Lie::kNone, double disk_bytes_per_s = 50e6);
  std::vector<std::string> living() const;
  std::string busy_worker();  // one that serves somebody, else any; empty: none lives
  WorkerNode& worker(const std::string& name) { return *workers_.at(name); }

  // --- faults ---
  void at(Time when, Task task) { world_.queue.after(when, nullptr, std::move(task)); }
  void crash(const std::string& worker, Time back_after);  // back with the same identity; 0: at once
  void crash_for_good(const std::string& worker);
  void pause(const std::string& worker, Time duration);
  void partition(const std::string& a, const std::string& b, bool one_way, Time duration);
  void blip(const std::string& a, const std::string& b) { world_.net.reset(a, b); }
  void restart_gateway(Time down);
  void drain(const std::string& worker);

  // Until every request has ended and the cluster is quiet; checks what must be true then.
  void run();
  GatewayNode* gateway() { return gateway_.get(); }
  std::vector<std::unique_ptr<ClientRequest>>& requests() { return requests_; }
  std::string describe();

 private:
  void start_gateway();
  void submit(ClientRequest& client);
  void link_to_all(const std::string& node);
  void check_end();

  const ClusterOptions options_;
  World world_;
  std::map<std::string, WorkerSpec> specs_;
  std::map<std::string, std::unique_ptr<WorkerNode>> workers_;
  std::unique_ptr<GatewayNode> gateway_;
  std::vector<std::unique_ptr<ClientRequest>> requests_;
  size_t ended_ = 0;  // requests before this one have ended
  std::vector<TokenId> shared_prompt_;
  int last_worker_ = 0;
  std::set<uint64_t> drained_;  // processes that must have left in the end
};

}  // namespace tessera::sim
