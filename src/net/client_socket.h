// A blocking TCP or TLS connection in which every call has a deadline.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "net/url.h"

namespace tessera::net {

using Deadline = std::chrono::steady_clock::time_point;

// The certificates a client trusts. Immutable; shared by connections.
class TlsTrust;
// The system's, or those of a PEM file; InvalidArgument when that cannot be read.
Result<std::shared_ptr<const TlsTrust>> load_tls_trust(const std::string& ca_file);

// One thread.
class ClientSocket {
 public:
  // Tries the host's addresses in turn, then shakes hands and verifies the certificate for `url.host`. The
  // deadline does not cover the name lookup, which has the system resolver's own. `trust` may be null for
  // http. Unavailable when nobody answers, PermissionDenied when the certificate is not trusted.
  static Result<std::unique_ptr<ClientSocket>> connect(const Url& url,
                                                       const std::shared_ptr<const TlsTrust>& trust,
                                                       Deadline deadline);
  ~ClientSocket();
  ClientSocket(const ClientSocket&) = delete;
  ClientSocket& operator=(const ClientSocket&) = delete;

  Status write(std::string_view bytes, Deadline deadline);
  // 0: the server has closed.
  Result<size_t> read(std::span<char> into, Deadline deadline);
  // Nothing has arrived and the server has not closed: fit for another request.
  bool quiet() const;
  // Ends both directions: a read or write that waits returns at once. From any thread.
  void shut_down() const;

 private:
  struct State;
  explicit ClientSocket(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tessera::net
