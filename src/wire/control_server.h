// The gateway's control port: workers join, attach, and read model files here.
#pragma once

#include <memory>
#include <string>

#include "core/control_messages.h"
#include "core/messages.h"
#include "wire/certificates.h"
#include "wire/files.h"
#include "wire/link_options.h"
#include "wire/live_identity.h"
#include "wire/relay.h"

namespace tessera::wire {

// An attached worker. Thread-safe; send() never waits and may be called after the end (false).
class WorkerStream {
 public:
  virtual ~WorkerStream() = default;
  virtual const std::string& worker() const = 0;  // the name in its certificate
  // False: the stream has ended, or its queue was full, which ends it too (ResourceExhausted): a worker that
  // does not read is as good as lost. Also false for a message beyond kMaxBundleBytes, which ends nothing.
  virtual bool send(const ControlMessage& message) = 0;
  virtual bool send(const std::string& to, const Message& message) = 0;
  virtual bool send(const EngineMessage& message) = 0;
  // Sends it after what is queued and ends the stream; a worker that does not read is cut off after a while.
  virtual void close(const Goodbye& goodbye) = 0;
};

struct JoinRequest {
  std::string token_secret;
  std::string csr_pem;
  std::string wanted_name;  // empty: the gateway chooses
};
struct Membership {
  std::string worker;
  std::string chain_pem;  // the worker's certificate, then the authority's
};

// The gateway's side. join and renew come on the server's own threads and may wait for a database; the on_
// functions come on gRPC's few threads, which all streams of the process share, one after another for one
// stream: they must not block.
class ControlHandler : public FileHandler {
 public:
  // PermissionDenied: the token is unknown or expired.
  virtual Result<Membership> join(const JoinRequest& request) = 0;
  // The certificate of this name was shown in the TLS handshake.
  virtual Result<Membership> renew(const std::string& worker, const std::string& csr_pem) = 0;
  // Nobody has looked at the chain: CertificateAuthority::check_expired() does.
  virtual Result<Membership> renew_expired(const std::string& chain_pem, const std::string& csr_pem) = 0;
  // Is this worker attached now? Only then do tunnels lead from and to it. Must not block.
  virtual bool may_relay(const std::string& worker) = 0;
  // The Hello's worker is the certificate's, and its protocol one that this build speaks. The stream may be
  // kept beyond on_detach.
  virtual void on_attach(std::shared_ptr<WorkerStream> stream, Hello hello) = 0;
  virtual void on_control(WorkerStream& stream, ControlMessage message) = 0;
  virtual void on_message(WorkerStream& stream, std::string to, Message message) = 0;
  virtual void on_engine(WorkerStream& /*stream*/, EngineMessage /*message*/) {}
  // Once for each on_attach, after the stream's last message.
  virtual void on_detach(WorkerStream& stream, const Status& why) = 0;
};

class ControlServer {
 public:
  // Listens on "HOST:PORT" (port 0: a free one); kUnavailable when it cannot.
  // `handler` must outlive the server.
  static Result<std::unique_ptr<ControlServer>> start(const std::string& listen, const LiveIdentity& gateway,
                                                      ControlHandler& handler,
                                                      const LinkOptions& options = {},
                                                      const RelayLimits& relay = {});
  // Ends all streams and waits for the handler's calls to return.
  virtual ~ControlServer() = default;
  virtual int port() const = 0;
  virtual RelayStats relay_stats() const = 0;
};

}  // namespace tessera::wire
