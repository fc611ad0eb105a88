// Transport: how messages reach workers and gateways by name. In-process here; gRPC streams in `wire`; a
// seeded network in tests/sim.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

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

// Who may register inboxes: a transport with names within this process.
class InboxRegistry {
 public:
  virtual ~InboxRegistry() = default;
  virtual void add(const std::string& name, Inbox& inbox) = 0;
  // After it returns no further delivery to that inbox starts.
  virtual void remove(const std::string& name) = 0;
};

// What a sender remembers of a message that it hands over, so as to answer for it if it cannot be delivered:
// a few numbers, as this is done for every message.
class Receipt {
 public:
  explicit Receipt(const Message& message);
  SessionId session() const { return session_; }

  // What is owed to the session's gateway; nothing for messages that nobody waits for. An OpenSession is
  // refused for want of room, which may come, or (`room_may_come` false) because only another route helps;
  // for what a route needs, the route is broken.
  std::optional<Message> answer(const std::string& to, const std::string& why,
                                bool room_may_come = true) const;

 private:
  enum class Kind : uint8_t { kUnanswered, kOpen, kRouted };
  SessionId session_ = 0;
  Epoch epoch_ = 0;
  int hop_ = 0;
  Kind kind_ = Kind::kUnanswered;
};

// The process that an inbox is in: "WORKER" of "WORKER/INSTANCE".
inline std::string_view process_of(std::string_view inbox) {
  return inbox.substr(0, inbox.find('/'));
}

// Names within one process. A message to an unknown or unwilling worker comes back to its gateway as Refused
// or Failed. Thread-safe. Inboxes must outlive their registration.
class InProcessTransport final : public MessageSink, public InboxRegistry {
 public:
  void add(const std::string& name, Inbox& inbox) override;
  void remove(const std::string& name) override;
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
