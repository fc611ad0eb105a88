// WorkerTransport: how a worker process's messages find their way: to engines in this process, to neighbours,
// to gateways. Also knows which sessions of which gateway are open here.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/mutex.h"
#include "cluster/transport.h"

namespace tessera::worker {

// Ways out of this process; the wire. Thread-safe, must not block; false: not taken.
class Uplink {
 public:
  virtual ~Uplink() = default;
  virtual bool send_to_gateway(const std::string& inbox, Message message) = 0;
  // `address`: where the session's gateway says the peer is; empty: through the gateway only.
  virtual bool send_to_peer(const std::string& worker, const std::string& address, const std::string& inbox,
                            Message message) = 0;
};

// Thread-safe.
class WorkerTransport final : public MessageSink, public cluster::InboxRegistry {
 public:
  WorkerTransport(std::string worker, Uplink& uplink) : worker_(std::move(worker)), uplink_(uplink) {}

  void add(const std::string& name, cluster::Inbox& inbox) override;
  void remove(const std::string& name) override;

  // From this process's engines.
  void send(const std::string& to, Message message) override;
  // From a gateway's stream: any message that a hop may receive.
  void from_gateway(const std::string& to, Message message);
  // From a neighbour's stream: rows and tokens only, anything else is dropped (the engine checks the
  // session's ticket).
  void from_peer(const std::string& to, Message message);
  // The wire could not bring this to `worker`.
  void undelivered(const std::string& to, const Message& message, const Status& why);

  // A link that was up broke: what was sent shortly before may be lost, so the sessions that use it are
  // broken.
  void peer_down(const std::string& worker, const Status& why);

  // Closes every session that a gateway ("GATEWAY", all of its models) has open here.
  void forget_sessions(const std::string& gateway);
  size_t open_sessions() const;

 private:
  struct OpenHere {
    Epoch epoch = 0;
    std::string gateway;
    std::map<std::string, std::string> addresses;  // of the route's workers
  };
  bool deliver(const std::string& to, Message& message);
  void deliver_or_report(const std::string& to, Message message);
  // A hop of the session that is open here, or null. Valid while the mutex is held.
  const OpenHere* find_open(SessionId session) const TESSERA_REQUIRES(mutex_);
  void note(const std::string& to, const Message& message);
  // Tells the session's gateway.
  void report(SessionId session, std::optional<Message> answer);

  const std::string worker_;
  Uplink& uplink_;
  mutable Mutex mutex_;  // not held while delivering
  std::map<std::string, cluster::Inbox*> inboxes_ TESSERA_GUARDED_BY(mutex_);
  // By session and inbox: one worker may host several hops of a route.
  std::map<std::pair<SessionId, std::string>, OpenHere> open_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::worker
