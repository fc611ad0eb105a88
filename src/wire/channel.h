// What every gRPC connection of the cluster has in common: TLS with the cluster's authority, keepalive,
// sizes, and how a Status crosses it. For this folder's .cc files.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "wire/address.h"
#include "wire/certificates.h"
#include "wire/link_options.h"
#include "wire/live_identity.h"

namespace tessera::wire {

grpc::Status to_grpc(const Status& status);
// Never ok: the end of a stream is always news.
Status from_grpc(const grpc::Status& status);

// A connection of its own (no sharing between channels) to a process whose certificate carries
// `expected_name`. Without `identity` no client certificate is shown (Join).
std::shared_ptr<grpc::Channel> make_channel(const Address& address, const std::string& ca_pem,
                                            const Identity* identity, const std::string& expected_name,
                                            const LinkOptions& options);

enum class ClientCertificate { kAskedFor, kRequired };

// What a server shows: at every handshake the identity as it is then. Thread-safe.
class ServerIdentity {
 public:
  explicit ServerIdentity(LiveIdentity identity) : identity_(std::move(identity)) {}
  // The identity if it is another than the last call gave, else null.
  std::shared_ptr<const Identity> changed();

 private:
  const LiveIdentity identity_;
  Mutex mutex_;
  std::shared_ptr<const Identity> given_ TESSERA_GUARDED_BY(mutex_);
};

// A server of these services that listens on "HOST:PORT" (port 0: a free one); `port` is the one that it got.
// Unavailable when it cannot listen. Services and `identity` must outlive it.
Result<std::unique_ptr<grpc::Server>> start_server(const std::string& listen, ServerIdentity& identity,
                                                   ClientCertificate client, const LinkOptions& options,
                                                   std::initializer_list<grpc::Service*> services, int* port);
// Ends all calls and waits for them; null is nothing to stop.
void stop_server(std::unique_ptr<grpc::Server> server);

// The common name of the client's verified certificate; empty without one.
std::string peer_name(const grpc::ServerContextBase& context);

}  // namespace tessera::wire
