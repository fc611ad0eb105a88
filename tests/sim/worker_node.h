// WorkerNode: a worker process of the simulation: the real WorkerMember, and real engines with the toy model
// for the block ranges that it is told to host.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cluster/worker_member.h"
#include "engine/engine.h"
#include "sim/wire.h"

namespace tessera::sim {

enum class Lie {
  kNone,
  kRange,    // reports other blocks than it hosts
  kForge,    // sends tokens and rows into sessions of others, and stale ones of its own
  kGarbage,  // what it sends has wrong sizes, positions and counts
};

struct WorkerSpec {
  std::string name;
  WorkerCapabilities capabilities;
  double disk_bytes_per_s = 50e6;
  Time row_time = std::chrono::microseconds(20);  // of one row through one block
  uint64_t output_bytes = uint64_t{1} << 24;      // for kept outputs
  size_t queue_capacity = 4096;
  Lie lie = Lie::kNone;
};

class WorkerNode final : public cluster::MemberHost, public cluster::MemberLink {
 public:
  WorkerNode(World& world, const WorkerSpec& spec);
  ~WorkerNode() override;  // SIGKILL

  const ProcessRef& process() const { return process_; }
  bool left() const { return left_; }  // its membership ended for good
  const Status& left_because() const { return left_because_; }
  cluster::WorkerMember& member() { return *member_; }
  struct Counts {
    int64_t running = 0, kv_used = 0, kv_missing = 0, recomputed = 0, replayed = 0, preempted = 0;
  };
  Counts counts() const;
  bool hosts_sessions() const { return counts().running > 0; }
  std::string describe() const;

  // The control stream's end here. `connection` tells streams apart.
  void dial(Time delay);
  void stream_broken(Channel connection);
  void control_arrived(Channel connection, const ControlMessage& message);

  // MemberHost
  void load(const LoadInstance& load) override;
  void unload(const std::string& id) override;
  void forget_sessions(const std::string& gateway) override;
  void probe(const ProbePeer& peer) override { probed_.insert(peer.peer); }
  std::vector<InstanceReport> reports() const override;
  std::vector<LinkReport> links() const override;
  // MemberLink
  void send(ControlMessage message) override;
  void reconnect() override;

 private:
  class Instance;

  bool receive(const std::string& inbox, Message message);
  void finish_load(const std::string& id);
  uint64_t bytes_in_use() const;
  void misbehave();
  Message spoil(Message message);

  World& world_;
  const WorkerSpec spec_;
  const ProcessRef process_;
  ProcessExecutor executor_;
  Wire wire_;
  std::map<std::string, std::shared_ptr<Instance>> instances_;
  std::unique_ptr<cluster::WorkerMember> member_;
  Channel connection_ = 0;  // 0: none
  bool dialling_ = false;
  bool left_ = false;
  Status left_because_;
  std::set<std::string> probed_;    // workers to which it was asked to measure its way
  std::vector<Token> sent_tokens_;  // kForge: to be sent again, late
  struct OpenHere {
    std::string gateway;
    Epoch epoch = 0;
    int hop = 0;
  };
  std::map<std::string, std::map<SessionId, OpenHere>> open_;  // by instance
};

}  // namespace tessera::sim
