// Transport: how messages reach workers and gateways by name. In-process here; gRPC streams in `wire`; a
// seeded network in tests/sim.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "core/messages.h"

namespace tessera::cluster {

// The receiving end. Called from any thread, must not block.
class Inbox {
 public:
  virtual ~Inbox() = default;
  // False: not taken (queue full, stopping); the transport answers the sender where a message calls for an
  // answer.
  virtual bool deliver(Message message) = 0;
};

// Names within one process. A message to an unknown or unwilling worker comes back to its gateway as Refused
// or Failed. Thread-safe. Inboxes must outlive their registration.
class InProcessTransport final : public MessageSink {
 public:
  void add(const std::string& name, Inbox& inbox);
  // After it returns no further delivery to that inbox starts.
  void remove(const std::string& name);
  void send(const std::string& to, Message message) override;

 private:
  bool deliver(const std::string& to, Message& message);

  Mutex mutex_;  // held for the map only, not while delivering
  std::map<std::string, Inbox*> inboxes_ TESSERA_GUARDED_BY(mutex_);
  // gateway of each open session, so that an undeliverable Rows or Token can be reported to somebody who acts
  // on it
  std::map<SessionId, std::string> gateways_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::cluster
