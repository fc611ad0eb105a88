#include "worker/transport.h"

namespace tessera::worker {

using cluster::process_of;
using cluster::Receipt;

void WorkerTransport::add(const std::string& name, cluster::Inbox& inbox) {
  MutexLock lock(mutex_);
  inboxes_[name] = &inbox;
}

void WorkerTransport::remove(const std::string& name) {
  MutexLock lock(mutex_);
  inboxes_.erase(name);
}

bool WorkerTransport::deliver(const std::string& to, Message& message) {
  cluster::Inbox* inbox = nullptr;
  {
    MutexLock lock(mutex_);
    auto found = inboxes_.find(to);
    if (found != inboxes_.end()) inbox = found->second;
  }
  return inbox != nullptr && inbox->deliver(std::move(message));
}

const WorkerTransport::OpenHere* WorkerTransport::find_open(SessionId session) const {
  auto found = open_.lower_bound({session, std::string()});
  return found != open_.end() && found->first.first == session ? &found->second : nullptr;
}

// Remembers who opened what, until it is closed.
void WorkerTransport::note(const std::string& to, const Message& message) {
  MutexLock lock(mutex_);
  const std::pair<SessionId, std::string> key(session_of(message), to);
  if (const auto* open = std::get_if<OpenSession>(&message)) {
    OpenHere& here = open_[key];
    if (open->epoch < here.epoch) return;
    here = {open->epoch, open->gateway, {}};
    if (open->route == nullptr) return;
    for (const Hop& hop : *open->route) here.addresses[std::string(process_of(hop.worker))] = hop.address;
  } else if (const auto* close = std::get_if<CloseSession>(&message)) {
    auto found = open_.find(key);
    if (found != open_.end() && found->second.epoch <= close->epoch) open_.erase(found);
  }
}

void WorkerTransport::report(SessionId session, std::optional<Message> answer) {
  if (!answer) return;
  std::string gateway;
  {
    MutexLock lock(mutex_);
    if (const OpenHere* open = find_open(session)) gateway = open->gateway;
  }
  if (!gateway.empty()) uplink_.send_to_gateway(gateway, std::move(*answer));
}

void WorkerTransport::from_gateway(const std::string& to, Message message) {
  note(to, message);
  const Receipt receipt(message);
  bool here;
  {
    MutexLock lock(mutex_);
    here = inboxes_.count(to) > 0;
  }
  if (here && deliver(to, message)) return;
  report(receipt.session(), here ? receipt.answer(to, "worker " + to + " takes no messages")
                                 : receipt.answer(to, "worker " + to + " does not host these blocks", false));
}

void WorkerTransport::from_peer(const std::string& to, Message message) {
  if (std::holds_alternative<Rows>(message) || std::holds_alternative<Token>(message))
    deliver_or_report(to, std::move(message));
}

// Else the session would wait for ever.
void WorkerTransport::deliver_or_report(const std::string& to, Message message) {
  const Receipt receipt(message);
  if (!deliver(to, message))
    report(receipt.session(), receipt.answer(to, "worker " + to + " takes no messages"));
}

void WorkerTransport::send(const std::string& to, Message message) {
  const std::string process(process_of(to));
  if (process == worker_) {
    deliver_or_report(to, std::move(message));
    return;
  }
  const Receipt receipt(message);
  std::optional<std::string> address;
  {
    MutexLock lock(mutex_);
    if (const OpenHere* open = find_open(receipt.session()))
      if (auto peer = open->addresses.find(process); peer != open->addresses.end()) address = peer->second;
  }
  if (!address) {
    uplink_.send_to_gateway(to, std::move(message));
    return;
  }
  if (!uplink_.send_to_peer(process, *address, to, std::move(message)))
    report(receipt.session(), receipt.answer(to, "the link to " + process + " is full"));
}

void WorkerTransport::undelivered(const std::string& to, const Message& message, const Status& why) {
  report(session_of(message), Receipt(message).answer(to, why.message()));
}

void WorkerTransport::peer_down(const std::string& worker, const Status& why) {
  std::vector<std::pair<std::string, Message>> reports;
  {
    MutexLock lock(mutex_);
    for (const auto& [key, open] : open_)
      if (open.addresses.count(worker) > 0)
        reports.emplace_back(
            open.gateway, Failed{key.first, open.epoch, 0,
                                 unavailable("its link to " + worker + " broke: " + why.message()), worker});
  }
  for (auto& [gateway, failed] : reports) uplink_.send_to_gateway(gateway, std::move(failed));
}

void WorkerTransport::forget_sessions(const std::string& gateway) {
  std::vector<std::pair<std::string, Message>> closes;
  {
    MutexLock lock(mutex_);
    for (auto it = open_.begin(); it != open_.end();) {
      if (process_of(it->second.gateway) != gateway) {
        ++it;
        continue;
      }
      closes.emplace_back(it->first.second, CloseSession{it->first.first, it->second.epoch});
      it = open_.erase(it);
    }
  }
  for (auto& [inbox, close] : closes) deliver(inbox, close);
}

size_t WorkerTransport::open_sessions() const {
  MutexLock lock(mutex_);
  return open_.size();
}

}  // namespace tessera::worker
