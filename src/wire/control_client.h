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

namespace tessera::wire {

// The certificate of the authority behind a gateway: taken from its TLS handshake, believed only if its
// SHA-256 is the token's. PermissionDenied: another authority answers there. Tries the addresses in order.
Result<std::string> fetch_ca(std::string_view addresses, const Digest& ca_sha256,
                             std::chrono::milliseconds timeout = std::chrono::milliseconds(5000));

// Makes a key, asks for a certificate with the token's secret, checks what comes back. The identity is the
// caller's to save. Waits; PermissionDenied: the gateway does not know the token.
Result<Identity> join(const JoinUrl& url, std::string_view wanted_name, const LinkOptions& options = {});

// A new certificate for the same key and name.
Result<Identity> renew(std::string_view addresses, const Identity& identity, const LinkOptions& options = {});

// What the stream tells its worker, on its own threads, one after another; must not block.
class GatewayEvents {
 public:
  virtual ~GatewayEvents() = default;
  virtual Hello hello() = 0;                            // for each attempt to connect
  virtual void on_control(ControlMessage message) = 0;  // Welcome is the first one of a connection
  virtual void on_message(std::string to, Message message) = 0;
  // The connection is lost, or an attempt failed. `final`: no other attempt is made, the gateway refused for
  // good (or the certificate has expired) and `why` says so.
  virtual void on_down(const Status& why, bool final) = 0;
};

// Keeps a stream to the gateway up: reconnects with backoff and jitter, on each of its addresses in turn.
class GatewayStream {
 public:
  static Result<std::unique_ptr<GatewayStream>> start(std::string_view addresses, const Identity& identity,
                                                      GatewayEvents& events, const LinkOptions& options = {});
  // Ends the stream; no event comes after it. Not from within an event.
  virtual ~GatewayStream() = default;

  // Thread-safe; never waits. False: not connected, or the queue is full, which ends the connection.
  virtual bool send(const ControlMessage& message) = 0;
  virtual bool send(const std::string& to, const Message& message) = 0;
};

}  // namespace tessera::wire
