// Wire: a process's end of the data plane over the simulated network. What cannot be delivered comes back as
// Failed that names the peer, from the sender's side, as cluster/transport.h promises.
#pragma once

#include <map>
#include <string>

#include "core/messages.h"
#include "sim/world.h"

namespace tessera::sim {

size_t bytes_of(const Message& message);

class Wire final : public MessageSink {
 public:
  // `receive(inbox, message)`: false when the inbox is unknown or does not take the message.
  using Receiver = std::function<bool(const std::string& inbox, Message message)>;

  Wire(World& world, ProcessRef process, Receiver receive);
  ~Wire() override;

  void send(const std::string& to, Message message) override;
  const ProcessRef& process() const { return process_; }

 private:
  void arrive(const std::string& inbox, Message message);
  void take(const std::string& inbox, Message message);
  void refuse(const std::string& inbox, const Message& message);
  void report_lost(const std::string& to, const Message& message);
  std::string gateway_of(const Message& message) const;

  World& world_;
  const ProcessRef process_;
  const Receiver receive_;
  std::map<SessionId, std::string> gateways_;  // that opened sessions here or from here
};

}  // namespace tessera::sim
