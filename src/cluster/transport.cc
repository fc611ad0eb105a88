#include "cluster/transport.h"

namespace tessera::cluster {

Receipt::Receipt(const Message& message)
    : session_(session_of(message)), epoch_(std::visit([](const auto& m) { return m.epoch; }, message)) {
  if (const auto* open = std::get_if<OpenSession>(&message)) {
    kind_ = Kind::kOpen;
    hop_ = open->hop;
  } else if (std::holds_alternative<StartSession>(message) || std::holds_alternative<Rows>(message) ||
             std::holds_alternative<Token>(message) || std::holds_alternative<CloseSession>(message)) {
    kind_ = Kind::kRouted;
  }
}

std::optional<Message> Receipt::answer(const std::string& to, const std::string& why,
                                       bool room_may_come) const {
  switch (kind_) {
    case Kind::kOpen:
      return Refused{session_, epoch_, hop_, room_may_come ? resource_exhausted(why) : unavailable(why)};
    case Kind::kRouted:
      return Failed{session_, epoch_, 0, unavailable(why), to};
    case Kind::kUnanswered:
      break;
  }
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
  const Receipt receipt(message);
  const bool opens = open != nullptr;
  if (deliver(to, message) || gateway.empty() || gateway == to) return;
  if (std::optional<Message> answer =
          receipt.answer(to, "worker " + to + (opens ? " takes no more work" : " does not take messages")))
    deliver(gateway, *answer);
}

}  // namespace tessera::cluster
