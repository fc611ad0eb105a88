// Reaching a worker behind NAT: an opaque byte tunnel through the gateway between two loopback sockets. What
// dials and what is dialled believe they have a plain TCP connection, so TLS and the names in its
// certificates go from worker to worker and the gateway carries bytes that it cannot read.
//
//   dialler's PeerLinks → loopback door → Relay stream → gateway → Relay stream → target's PeerServer
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "wire/address.h"
#include "wire/link_options.h"
#include "wire/live_identity.h"

namespace tessera::wire {

// An address "relay:WORKER" means: through the gateway.
constexpr std::string_view kRelayScheme = "relay:";
std::string relay_address(std::string_view worker);
bool is_relay_address(std::string_view address);

// What a gateway carries. Beyond the counts a tunnel is refused with ResourceExhausted.
struct RelayLimits {
  int max_tunnels = 1024;
  int max_tunnels_per_worker = 64;                        // as either of its ends
  std::chrono::milliseconds accept_timeout{10'000};       // for the dialled worker to attach its end
  std::chrono::milliseconds idle_timeout{5 * 60 * 1000};  // without a byte; live links ping each second
  std::chrono::milliseconds absence{30'000};              // of a worker that is no longer attached
};
struct RelayStats {
  uint64_t open = 0;     // now
  uint64_t opened = 0;   // since the start
  uint64_t refused = 0;  // since the start
  uint64_t bytes = 0;    // both ways
};

// A worker's side, for both directions. Thread-safe.
class RelayClient {
 public:
  // InvalidArgument: not an address list. Nothing is dialled yet.
  static Result<std::unique_ptr<RelayClient>> create(std::string_view gateway_addresses,
                                                     const LiveIdentity& identity,
                                                     const LinkOptions& options = {});
  // Ends all tunnels. Waits for them; not longer than a moment.
  virtual ~RelayClient() = default;

  // From now on takes the tunnels that the gateway offers and connects each to this address of our own
  // server. Once.
  virtual void accept_to(const Address& server) = 0;
  // A loopback address: each connection made to it is a tunnel to that worker. A tunnel that cannot be made
  // closes its connection, and failure() says why.
  virtual Result<Address> dial(const std::string& worker) = 0;
  // Of the latest tunnel to that worker; ok if it carried bytes or none was tried.
  virtual Status failure(const std::string& worker) const = 0;
};

// Where to dial for "HOST:PORT,…" or "relay:WORKER". InvalidArgument: neither, or no `relay` is at hand.
Result<std::vector<Address>> addresses_to_dial(std::string_view text, RelayClient* relay);

}  // namespace tessera::wire
