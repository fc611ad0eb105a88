#include <grpcpp/server.h>
#include <tessera/v1/services.grpc.pb.h>

#include "wire/channel.h"
#include "wire/files_service.h"
#include "wire/peer_links.h"
#include "wire/protocol.h"
#include "wire/server_stream.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;

class LinkStream final : public ServerStream {
 public:
  LinkStream(grpc::CallbackServerContext* context, PeerHandler& handler, std::string self,
             const LinkOptions& options)
      : ServerStream(context, options),
        handler_(handler),
        peer_(peer_name(*context)),
        self_name_(std::move(self)) {}

 private:
  Status on_frame(Frame frame) override {
    if (auto* link = std::get_if<LinkMessage>(&frame)) {
      if (auto* hello = std::get_if<LinkHello>(link)) return on_hello(*hello);
      if (auto* ping = std::get_if<Ping>(link); ping != nullptr && protocol_ != 0)
        return answer(Pong{ping->number, ping->payload_bytes});
      return invalid_argument("a message that does not belong on a worker's link");
    }
    auto* envelope = std::get_if<Envelope>(&frame);
    if (protocol_ == 0 || envelope == nullptr)
      return invalid_argument("a worker's link begins with LinkHello");
    handler_.on_message(peer_, std::move(envelope->to), std::move(envelope->message));
    return {};
  }
  Status on_hello(const LinkHello& hello) {
    if (hello.worker != peer_)
      return {Code::kPermissionDenied,
              "the LinkHello is of '" + hello.worker + "', the certificate of '" + peer_ + "'"};
    TESSERA_ASSIGN_OR_RETURN(protocol_, agree_on_protocol(kProtocol, hello.protocol, peer_));
    return answer(LinkHello{kProtocol, self_name_, 0});
  }
  Status answer(const LinkMessage& message) {
    if (push(encode(message, protocol_)) == Push::kFull)
      return resource_exhausted(peer_ + " does not read its answers");
    return {};
  }
  void on_end(const Status&) override {}  // whoever sends on a link is the one to act on its end

  PeerHandler& handler_;
  const std::string peer_;
  const std::string self_name_;
  int protocol_ = 0;  // 0: no LinkHello yet
};

using PeerService = pb::Peer::WithRawCallbackMethod_Link<pb::Peer::Service>;

class PeerServerImpl final : public PeerServer, private PeerService {
 public:
  PeerServerImpl(const LiveIdentity& identity, PeerHandler& handler, const LinkOptions& options)
      : name_(identity.name()),
        identity_(identity),
        handler_(handler),
        options_(options),
        files_(handler, pool_) {}
  ~PeerServerImpl() override { stop_server(std::move(server_)); }

  Status listen(const std::string& listen) {
    TESSERA_ASSIGN_OR_RETURN(server_, start_server(listen, identity_, ClientCertificate::kRequired, options_,
                                                   {static_cast<PeerService*>(this), &files_}, &port_));
    return {};
  }
  int port() const override { return port_; }

 private:
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Link(
      grpc::CallbackServerContext* context) override {
    auto stream = std::make_shared<LinkStream>(context, handler_, name_, options_);
    stream->begin();
    return stream.get();
  }

  const std::string name_;
  ServerIdentity identity_;
  PeerHandler& handler_;
  const LinkOptions options_;
  BlockingPool pool_{"peer-calls"};
  FilesService files_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

Result<std::unique_ptr<PeerServer>> PeerServer::start(const std::string& listen, const LiveIdentity& identity,
                                                      PeerHandler& handler, const LinkOptions& options) {
  auto server = std::make_unique<PeerServerImpl>(identity, handler, options);
  TESSERA_RETURN_IF_ERROR(server->listen(listen));
  return std::unique_ptr<PeerServer>(std::move(server));
}

}  // namespace tessera::wire
