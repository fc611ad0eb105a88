#include "cluster/transport.h"

namespace tessera::cluster {
namespace {

struct SessionAndEpoch {
  SessionId session;
  Epoch epoch;
};

SessionAndEpoch key_of(const Message& message) {
  return std::visit([](const auto& m) { return SessionAndEpoch{m.session, m.epoch}; }, message);
}

}  // namespace

void InProcessTransport::add(const std::string& name, Inbox& inbox) {
  MutexLock lock(mutex_);
  inboxes_[name] = &inbox;
}

void InProcessTransport::remove(const std::string& name) {
  MutexLock lock(mutex_);
  inboxes_.erase(name);
}

bool InProcessTransport::deliver(const std::string& to, Message& message) {
  Inbox* inbox = nullptr;
  {
    MutexLock lock(mutex_);
    if (const auto* open = std::get_if<OpenSession>(&message)) gateways_[open->session] = open->gateway;
    if (std::get_if<CloseSession>(&message) != nullptr) gateways_.erase(session_of(message));
    auto found = inboxes_.find(to);
    if (found != inboxes_.end()) inbox = found->second;
  }
  return inbox != nullptr && inbox->deliver(std::move(message));
}

void InProcessTransport::send(const std::string& to, Message message) {
  const SessionAndEpoch key = key_of(message);
  const auto* open = std::get_if<OpenSession>(&message);
  const bool to_hop = open != nullptr || std::holds_alternative<StartSession>(message) ||
                      std::holds_alternative<Rows>(message) || std::holds_alternative<Token>(message);
  const int hop = open != nullptr ? open->hop : -1;
  std::string gateway;
  {
    MutexLock lock(mutex_);
    auto found = gateways_.find(key.session);
    if (found != gateways_.end()) gateway = found->second;
    if (open != nullptr) gateway = open->gateway;
  }
  if (deliver(to, message) || !to_hop || gateway.empty() || gateway == to) return;
  Message answer =
      Failed{key.session, key.epoch, hop, unavailable("worker " + to + " does not take messages"), to};
  if (hop >= 0)
    answer = Refused{key.session, key.epoch, hop, resource_exhausted("worker " + to + " takes no more work")};
  deliver(gateway, answer);
}

}  // namespace tessera::cluster
