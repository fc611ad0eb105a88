// The worker's side of the control port: from an invitation to a certificate, and the stream to the gateway.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/sha256.h"
#include "core/control_messages.h"
#include "core/messages.h"
#include "wire/certificates.h"
#include "wire/join_token.h"
#include "wire/link_options.h"
#include "wire/live_identity.h"

namespace tessera::wire {

// The certificate of the authority behind a gateway: taken from its TLS handshake, believed only if its
// SHA-256 is the token's. PermissionDenied: another authority answers there. Tries the addresses in order.
Result<std::string> fetch_ca(std::string_view addresses, const Digest& ca_sha256,
                             std::chrono::milliseconds timeout = std::chrono::milliseconds(5000));

// Makes a key, asks for a certificate with the token's secret, checks what comes back. The identity is the
// caller's to save. Waits; PermissionDenied: the gateway does not know the token.
Result<Identity> join(const JoinUrl& url, std::string_view wanted_name, const LinkOptions& options = {});

// A new certificate for the same key and name, also of one that has expired (kRenewalGrace).
Result<Identity> renew(std::string_view addresses, const Identity& identity, const LinkOptions& options = {});

// Asks the gateway whether it reaches us at `advertised` ("HOST:PORT,…"): the address that answered with our
// certificate, or empty. kUnavailable: the gateway does not answer; kUnsupported: it is too old to know.
Result<std::string> probe_reachability(std::string_view gateway_addresses, const Identity& identity,
                                       std::string_view advertised, const LinkOptions& options = {});

// What the stream tells its worker, on its own threads, one after another; must not block.
class GatewayEvents {
 public:
  virtual ~GatewayEvents() = default;
  virtual Hello hello() = 0;                            // for each attempt to connect
  virtual void on_control(ControlMessage message) = 0;  // Welcome is the first one of a connection
  virtual void on_message(std::string to, Message message) = 0;
  virtual void on_engine(EngineMessage /*message*/) {}
  // The connection is lost, or an attempt failed. `final`: no other attempt is made, the gateway refused for
  // good (or the certificate is beyond renewal) and `why` says so.
  virtual void on_down(const Status& why, bool final) = 0;
};

// Keeps a stream to the gateway up: reconnects with backoff and jitter, on each of its addresses in turn.
class GatewayStream {
 public:
  static Result<std::unique_ptr<GatewayStream>> start(std::string_view addresses,
                                                      const LiveIdentity& identity, GatewayEvents& events,
                                                      const LinkOptions& options = {});
  virtual ~GatewayStream() = default;

  // Ends the stream; no event comes after it, and send() is false. Not from within an event. The destructor
  // does it, too.
  virtual void stop() = 0;

  // Thread-safe; never waits. False: not connected, or the queue is full, which ends the connection.
  virtual bool send(const ControlMessage& message) = 0;
  virtual bool send(const std::string& to, const Message& message) = 0;
  virtual bool send(const EngineMessage& message) = 0;
};

}  // namespace tessera::wire
