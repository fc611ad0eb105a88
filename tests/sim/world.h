// World: what every part of a simulated cluster shares.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/control_messages.h"
#include "engine/toy_model.h"
#include "sim/checker.h"
#include "sim/network.h"

namespace tessera::sim {

class GatewayNode;
class Wire;

inline const std::string kGatewayNode = "gateway";
constexpr uint64_t kForgedTicket = 0x12345;  // of messages that nobody may believe

// A bug put in on purpose. Either may be empty.
struct Mutation {
  // What becomes of a message at its receiver's door.
  std::function<void(const std::string& to, Message message, std::vector<Message>& out)> door;
  // What becomes of a token between the session manager and the client.
  std::function<void(const Token& token, std::vector<Token>& out)> stream;
};

struct World {
  explicit World(uint64_t seed) : random(seed), net(queue, seed ^ 0x5eed) {}

  EventQueue queue;
  Random random;  // of the scenario; the network has its own
  Network net;
  Trace trace;
  Checker checker;
  Mutation mutation;
  std::map<std::string, engine::toy::ToyOptions> models;
  std::map<std::string, Wire*> wires;  // by node, of living processes
  GatewayNode* gateway = nullptr;      // that runs now
  std::function<void(const std::string& worker, Channel connection, const ControlMessage& message)>
      control_to_worker;
  TaskMeter* gateway_meter = nullptr;  // of every gateway process that starts
  bool somebody_left = false;          // a worker whose membership ended for good is still in its place
  uint64_t last_process = 0;
  uint64_t last_connection = 0;
  uint64_t last_incarnation = 0;

  ProcessRef start_process(const std::string& node) {
    auto process = std::make_shared<Process>();
    process->node = node;
    process->number = ++last_process;
    if (node == kGatewayNode) process->meter = gateway_meter;
    net.start(process);
    return process;
  }
};

inline std::string node_of(const std::string& inbox) {
  return inbox.substr(0, inbox.find('/'));
}

}  // namespace tessera::sim
