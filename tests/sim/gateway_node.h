// GatewayNode: the gateway process of the simulation: the real Coordinator and a real SessionManager for each
// model.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/coordinator.h"
#include "sim/wire.h"

namespace tessera::sim {

constexpr uint64_t kBlockBytes = 100'000;  // weights of a toy block, as placement counts them
constexpr int kContext = 256;              // positions; every instance has KV for one such sequence at least

struct GatewaySpec {
  std::chrono::milliseconds lease{1000};
  std::chrono::milliseconds failover_timeout{40'000};
  std::chrono::milliseconds token_timeout{30'000};
  size_t max_waiting = 1024;
};

class GatewayNode final : public control::ControlSink {
 public:
  GatewayNode(World& world, const GatewaySpec& spec);
  ~GatewayNode() override;  // SIGKILL

  // The one that runs now.
  static GatewayNode* current(const World& world);

  const ProcessRef& process() const { return process_; }
  void add_model(const std::string& name, double demand = 1);
  void remove_model(const std::string& name);
  bool has_model(const std::string& name) const { return models_.count(name) > 0; }
  void submit(ClientRequest& client);
  void cancel(ClientRequest& client);
  control::Coordinator& coordinator() { return *coordinator_; }
  cluster::SessionStats stats() const;  // of all models
  int64_t failovers() const { return failovers_; }

  SessionId first_session() const { return first_session_; }
  std::vector<std::string> inboxes() const;
  const std::vector<std::string>& known_instances() const { return known_instances_; }

  // The control streams' ends here.
  void control_arrived(const std::string& worker, Channel connection, const ControlMessage& message);
  void stream_broken(Channel connection);
  // Messages from a worker were lost on their way.
  void data_lost(const std::string& worker);
  // ControlSink
  void send(const std::string& worker, ControlMessage message) override;

 private:
  struct Model;
  class Stream;

  World& world_;
  const GatewaySpec spec_;
  const ProcessRef process_;
  ProcessExecutor executor_;
  Wire wire_;
  std::unique_ptr<control::Coordinator> coordinator_;
  std::map<std::string, std::unique_ptr<Model>> models_;
  std::vector<std::unique_ptr<Model>> retired_;  // removed, but tasks may still speak of them
  std::map<std::string, Channel> connections_;   // by worker
  std::vector<std::string> known_instances_;     // inboxes that were ever asked for
  SessionId first_session_ = 0;
  int64_t failovers_ = 0;
};

}  // namespace tessera::sim
