// WorkerMember: the worker's side of its membership. Says hello, keeps the lease by heartbeats, carries out
// what the gateway asks. A state machine on injected Executor, Clock and links: no threads, no sockets.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "core/control_messages.h"

namespace tessera::cluster {

// What a worker hosts. Called on the executor, unless said thread-safe; must not block.
class MemberHost {
 public:
  virtual ~MemberHost() = default;
  // Begins to fetch and load; WorkerMember::instances_changed() tells of every change of state.
  virtual void load(const LoadInstance& load) = 0;
  virtual void unload(const std::string& id) = 0;
  // Sessions of a gateway that is gone for good are closed: nobody else would.
  virtual void forget_sessions(const std::string& gateway) = 0;
  virtual void probe(const ProbePeer& peer) = 0;
  virtual std::vector<InstanceReport> reports() const = 0;  // thread-safe
  virtual std::vector<LinkReport> links() const = 0;        // to peers; thread-safe
  // Of a host that stands for another engine; it hosts no blocks. Thread-safe.
  virtual std::optional<EngineReport> engine() const { return std::nullopt; }
};

// The control stream to the gateway. Thread-safe; must not block.
class MemberLink {
 public:
  virtual ~MemberLink() = default;
  virtual void send(ControlMessage message) = 0;
  virtual void reconnect() = 0;  // ends the stream and dials again
};

struct WorkerMemberOptions {
  std::string worker;
  uint64_t incarnation = 0;
  std::string version;
  std::string address;
  ProtocolRange protocol;
  WorkerCapabilities capabilities;
  // Sessions of a gateway that does not come back are closed after so long; longer than it would wait itself.
  std::chrono::milliseconds orphan_timeout{120'000};
};

class WorkerMember {
 public:
  // `on_ended`: the membership is over for good, with the reason: ok after a drain. On the executor.
  WorkerMember(WorkerMemberOptions options, MemberHost& host, MemberLink& link, Executor& executor,
               const Clock& clock, std::function<void(Status)> on_ended);
  ~WorkerMember();

  // Thread-safe.
  Hello hello() const;  // for every new stream
  void receive(ControlMessage message);
  void disconnected();
  void instances_changed();
  void drain();  // the person at this worker wants it to go

 private:
  void on(const Welcome& welcome);
  void on(const HeartbeatAck& ack);
  void on(const LoadInstance& load) { host_.load(load); }
  void on(const UnloadInstance& unload);
  void on(const Drain&);
  void on(const Goodbye& goodbye);
  void on(const ProbePeer& peer) { host_.probe(peer); }
  void beat();
  void end_if_empty();

  const WorkerMemberOptions options_;
  MemberHost& host_;
  MemberLink& link_;
  Executor& executor_;
  const Clock& clock_;
  const std::function<void(Status)> on_ended_;
  // Executor only.
  bool connected_ = false;
  bool draining_ = false;
  bool told_to_go_ = false;
  bool ended_ = false;
  Welcome welcome_;
  uint64_t beats_ = 0;
  MonotonicTime beat_at_{};
  double gateway_rtt_s_ = 0;  // moving average
  TimerId beat_timer_ = 0;
  TimerId orphan_timer_ = 0;
};

}  // namespace tessera::cluster
