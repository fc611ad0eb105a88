// The data plane between workers: a server for what the others send, and one lasting stream to each
// neighbour. TLS with certificates on both sides; a peer is the name in its certificate.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/control_messages.h"
#include "core/messages.h"
#include "wire/certificates.h"
#include "wire/files.h"
#include "wire/link_options.h"
#include "wire/live_identity.h"
#include "wire/relay.h"

namespace tessera::wire {

// on_message comes on gRPC's threads, one after another for one peer, and must not block.
class PeerHandler : public FileHandler {
 public:
  virtual void on_message(const std::string& peer, std::string to, Message message) = 0;
};

class PeerServer {
 public:
  // Listens on "HOST:PORT" (port 0: a free one). `handler` must outlive the server.
  static Result<std::unique_ptr<PeerServer>> start(const std::string& listen, const LiveIdentity& identity,
                                                   PeerHandler& handler, const LinkOptions& options = {});
  virtual ~PeerServer() = default;
  virtual int port() const = 0;
};

// Both come on the links' own threads and must not block.
class PeerEvents {
 public:
  virtual ~PeerEvents() = default;
  // This message was never given to the connection: the peer cannot be reached, or its queue is full.
  virtual void undelivered(const std::string& peer, const std::string& to, Message message,
                           const Status& why) = 0;
  // A link that was up has broken: what was sent shortly before may be lost as well.
  virtual void down(const std::string& peer, const Status& why) = 0;
};

// Thread-safe. A stream is dialled when the first message for its peer comes, and again after a failure, not
// before its backoff has passed: until then messages come back as undelivered at once.
class PeerLinks : public MessageSink {
 public:
  // `relay`: how peers behind NAT are dialled; null: not at all. Must outlive the links.
  static std::unique_ptr<PeerLinks> create(const LiveIdentity& identity, uint64_t incarnation,
                                           PeerEvents& events, const LinkOptions& options = {},
                                           RelayClient* relay = nullptr);
  // Closes all links; no event comes after it. Not from within an event.
  ~PeerLinks() override = default;

  // Where a peer is reached ("HOST:PORT,…" or "relay:PEER"); another address than before moves the link when
  // it is next dialled. InvalidArgument: not an address list.
  virtual Status learn(const std::string& peer, std::string_view addresses) = 0;
  virtual void forget(const std::string& peer) = 0;

  // `to` is an inbox: "PEER" or "PEER/INSTANCE". Never waits. One stream keeps the order of its messages.
  void send(const std::string& to, Message message) override = 0;
  // Measures the link: a small ping, then one of 1 MiB. Dials it if need be.
  virtual void probe(const std::string& peer) = 0;
  // Round trip (smoothed, each second while a link is up) and rate (of the last probe; 0 before one).
  virtual std::vector<LinkReport> reports() const = 0;
};

}  // namespace tessera::wire
