#include "cluster/transport.h"

namespace tessera::cluster {
std::optional<Message> answer_for_undelivered(const Message& message, const std::string& to,
                                              const std::string& why) {
  const auto epoch = std::visit([](const auto& m) { return m.epoch; }, message);
  if (const auto* open = std::get_if<OpenSession>(&message))
    return Refused{open->session, epoch, open->hop, resource_exhausted(why)};
  if (std::holds_alternative<StartSession>(message) || std::holds_alternative<Rows>(message) ||
      std::holds_alternative<Token>(message) || std::holds_alternative<CloseSession>(message))
    return Failed{session_of(message), epoch, 0, unavailable(why), to};
  return std::nullopt;
}

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
  const auto* open = std::get_if<OpenSession>(&message);
  std::string gateway;
  if (open != nullptr) {
    gateway = open->gateway;
  } else {
    MutexLock lock(mutex_);
    auto found = gateways_.find(session_of(message));
    if (found != gateways_.end()) gateway = found->second;
  }
  std::optional<Message> answer = answer_for_undelivered(
      message, to, "worker " + to + (open != nullptr ? " takes no more work" : " does not take messages"));
  if (deliver(to, message) || !answer || gateway.empty() || gateway == to) return;
  deliver(gateway, *answer);
}

}  // namespace tessera::cluster
