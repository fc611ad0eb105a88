#include "wire/control_server.h"

#include <grpcpp/server.h>
#include <tessera/v1/services.grpc.pb.h>

#include <atomic>

#include "wire/channel.h"
#include "wire/files_service.h"
#include "wire/protocol.h"
#include "wire/reach.h"
#include "wire/relay_hub.h"
#include "wire/server_stream.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;

constexpr std::chrono::seconds kHelloTimeout{10};
constexpr std::chrono::seconds kGoodbyeTimeout{2};
constexpr std::chrono::seconds kProbeTimeout{3};
constexpr int kMaxProbes = 64;  // that wait

class AttachStream final : public ServerStream, public WorkerStream {
 public:
  AttachStream(grpc::CallbackServerContext* context, ControlHandler& handler, Executor& timers,
               const LinkOptions& options)
      : ServerStream(context, options), handler_(handler), timers_(timers), worker_(peer_name(*context)) {}

  const std::string& worker() const override { return worker_; }
  bool send(const ControlMessage& message) override { return queue(encode(message, protocol_)); }
  bool send(const std::string& to, const Message& message) override {
    return queue(encode(to, message, protocol_));
  }
  bool send(const EngineMessage& message) override { return queue(encode(message, protocol_)); }
  void close(const Goodbye& goodbye) override {
    close_with(goodbye,
               goodbye.final ? Status(Code::kPermissionDenied, goodbye.reason) : unavailable(goodbye.reason));
  }
  // A stream that says nothing is of no use to anybody.
  void expect_hello() {
    timers_.post_after(kHelloTimeout, [weak = weak_from_this()] {
      auto self = std::static_pointer_cast<AttachStream>(weak.lock());
      if (self != nullptr && !self->attached_) self->end(deadline_exceeded("no Hello came"));
    });
  }

 private:
  bool queue(std::string frame) {
    switch (push(std::move(frame))) {
      case Push::kQueued:
        return true;
      case Push::kFull:
        end(resource_exhausted(worker_ + " does not read what it is sent"));
        return false;
      case Push::kTooLarge:
      case Push::kClosed:
        break;
    }
    return false;
  }
  void close_with(const Goodbye& goodbye, const Status& status) {
    end_after(encode(ControlMessage(goodbye), protocol_), status);
    timers_.post_after(kGoodbyeTimeout, [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->abort();
    });
  }

  Status on_frame(Frame frame) override {
    if (!attached_) return on_hello(std::move(frame));
    if (auto* envelope = std::get_if<Envelope>(&frame)) {
      handler_.on_message(*this, std::move(envelope->to), std::move(envelope->message));
      return {};
    }
    if (auto* engine = std::get_if<EngineMessage>(&frame)) {
      handler_.on_engine(*this, std::move(*engine));
      return {};
    }
    auto* message = std::get_if<ControlMessage>(&frame);
    if (message == nullptr || std::holds_alternative<Hello>(*message))
      return invalid_argument("a message that does not belong on an attached control stream");
    handler_.on_control(*this, std::move(*message));
    return {};
  }
  Status on_hello(Frame frame) {
    auto* control = std::get_if<ControlMessage>(&frame);
    auto* hello = control == nullptr ? nullptr : std::get_if<Hello>(control);
    if (hello == nullptr) return invalid_argument("a control stream begins with Hello");
    if (hello->worker != worker_)
      return {Code::kPermissionDenied,
              "the Hello is of '" + hello->worker + "', the certificate of '" + worker_ + "'"};
    const auto version = agree_on_protocol(kProtocol, hello->protocol, worker_);
    if (!version.ok()) return version.status();
    protocol_ = *version;
    attached_ = true;
    handler_.on_attach(std::static_pointer_cast<AttachStream>(shared_from_this()), std::move(*hello));
    return {};
  }
  void on_end(const Status& status) override {
    if (attached_) handler_.on_detach(*this, status);
  }

  ControlHandler& handler_;
  Executor& timers_;
  const std::string worker_;
  std::atomic<bool> attached_{false};
  std::atomic<int> protocol_{kProtocol.highest};
};

// Ends a call at once.
class RefusedStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const Status& why) { Finish(to_grpc(why)); }
  void OnDone() override { delete this; }
};

using UnaryService = pb::Control::WithCallbackMethod_Probe<
    pb::Control::WithCallbackMethod_Renew<pb::Control::WithCallbackMethod_Join<pb::Control::Service>>>;
using ControlService = pb::Control::WithRawCallbackMethod_Attach<
    pb::Control::WithRawCallbackMethod_Relay<pb::Control::WithCallbackMethod_RelayListen<UnaryService>>>;

class ControlServerImpl final : public ControlServer, private ControlService {
 public:
  ControlServerImpl(const LiveIdentity& gateway, ControlHandler& handler, const LinkOptions& options,
                    const RelayLimits& relay)
      : gateway_(gateway),
        server_identity_(gateway),
        handler_(handler),
        options_(options),
        relay_([this](const std::string& worker) { return handler_.may_relay(worker); }, relay),
        files_(handler, pool_) {}
  ~ControlServerImpl() override {
    stop_server(std::move(server_));  // before the pool, on which its last calls may still run
  }

  Status listen(const std::string& listen) {
    TESSERA_ASSIGN_OR_RETURN(server_,
                             start_server(listen, server_identity_, ClientCertificate::kAskedFor, options_,
                                          {static_cast<ControlService*>(this), &files_}, &port_));
    return {};
  }
  int port() const override { return port_; }
  RelayStats relay_stats() const override { return relay_.stats(); }

 private:
  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context, const pb::JoinRequest* request,
                                 pb::Membership* response) override {
    auto* reactor = context->DefaultReactor();
    pool_.run([this, reactor, request, response] {
      answer(reactor, handler_.join({request->token_secret(), request->csr_pem(), request->wanted_name()}),
             response);
    });
    return reactor;
  }
  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context, const pb::RenewRequest* request,
                                  pb::Membership* response) override {
    auto* reactor = context->DefaultReactor();
    const std::string worker = peer_name(*context);
    if (worker.empty() && request->expired_chain_pem().empty()) {
      reactor->Finish(to_grpc({Code::kPermissionDenied, "a renewal needs the certificate that it renews"}));
      return reactor;
    }
    pool_.run([this, reactor, request, response, worker] {
      answer(reactor,
             worker.empty() ? handler_.renew_expired(request->expired_chain_pem(), request->csr_pem())
                            : handler_.renew(worker, request->csr_pem()),
             response);
    });
    return reactor;
  }
  grpc::ServerUnaryReactor* Probe(grpc::CallbackServerContext* context, const pb::ProbeRequest* request,
                                  pb::ProbeAnswer* response) override {
    auto* reactor = context->DefaultReactor();
    const std::string worker = peer_name(*context);
    if (worker.empty()) {
      reactor->Finish(to_grpc({Code::kPermissionDenied, "probes are for members of the cluster only"}));
      return reactor;
    }
    if (++probing_ > kMaxProbes) {
      --probing_;
      reactor->Finish(to_grpc(resource_exhausted("too many probes at once: try again later")));
      return reactor;
    }
    probes_.run([this, reactor, request, response, worker] {
      auto reached = reach_peer(request->addresses(), *gateway_.get(), worker, options_, kProbeTimeout);
      --probing_;
      if (reached.ok()) response->set_reached(*reached);
      reactor->Finish(to_grpc(reached.status()));
    });
    return reactor;
  }
  RelayHub::ListenReactor* RelayListen(grpc::CallbackServerContext* context,
                                       const pb::RelayListenRequest*) override {
    return relay_.open_listener(context, peer_name(*context));
  }
  RelayHub::EndReactor* Relay(grpc::CallbackServerContext* context) override {
    return relay_.open_end(context, peer_name(*context));
  }
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Attach(
      grpc::CallbackServerContext* context) override {
    if (peer_name(*context).empty())
      return new RefusedStream(
          {Code::kPermissionDenied, "a worker attaches with the certificate that it joined with"});
    auto stream = std::make_shared<AttachStream>(context, handler_, *timers_, options_);
    stream->expect_hello();
    stream->begin();
    return stream.get();
  }

  static void answer(grpc::ServerUnaryReactor* reactor, const Result<Membership>& membership,
                     pb::Membership* response) {
    if (membership.ok()) {
      response->set_worker(membership->worker);
      response->set_chain_pem(membership->chain_pem);
    }
    reactor->Finish(to_grpc(membership.status()));
  }

  const LiveIdentity gateway_;
  ServerIdentity server_identity_;
  ControlHandler& handler_;
  const LinkOptions options_;
  RelayHub relay_;
  std::unique_ptr<Executor> timers_ = make_thread_executor("control-timers");
  BlockingPool pool_{"control-calls"};
  BlockingPool probes_{"control-probes"};
  std::atomic<int> probing_{0};
  FilesService files_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& listen,
                                                            const LiveIdentity& gateway,
                                                            ControlHandler& handler,
                                                            const LinkOptions& options,
                                                            const RelayLimits& relay) {
  auto server = std::make_unique<ControlServerImpl>(gateway, handler, options, relay);
  TESSERA_RETURN_IF_ERROR(server->listen(listen));
  return std::unique_ptr<ControlServer>(std::move(server));
}

}  // namespace tessera::wire
