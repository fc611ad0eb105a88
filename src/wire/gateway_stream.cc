#include <atomic>
#include <ctime>

#include "base/executor.h"
#include "wire/address.h"
#include "wire/backoff.h"
#include "wire/client_stream.h"
#include "wire/control_client.h"
#include "wire/protocol.h"

namespace tessera::wire {
namespace {

constexpr const char* kAttachMethod = "/tessera.v1.Control/Attach";

// Unavailable while a renewal may still help; PermissionDenied when only joining again does.
Status check_expiry(const Identity& identity) {
  TESSERA_ASSIGN_OR_RETURN(const CertificateInfo info, certificate_info(identity.chain_pem));
  const int64_t now = std::time(nullptr);
  if (now < info.not_after_unix_s) return {};
  if (now < info.not_after_unix_s + kRenewalGrace.count())
    return unavailable("the worker's certificate has expired and waits for its renewal");
  return {Code::kPermissionDenied, "the worker's certificate has expired: join again"};
}

// Connections are made and mourned on one thread; frames come on gRPC's. A connection that has ended is
// followed by the next address at once, and by a wait after the last one.
class GatewayStreamImpl final : public GatewayStream {
 public:
  GatewayStreamImpl(std::vector<Address> addresses, LiveIdentity identity, GatewayEvents& events,
                    const LinkOptions& options)
      : book_(std::move(addresses)),
        identity_(std::move(identity)),
        events_(events),
        options_(options),
        backoff_(options) {}

  ~GatewayStreamImpl() override { stop(); }

  void stop() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      if (stream_ != nullptr) stream_->cancel(cancelled("the worker is stopping"));
      idle_.wait(mutex_, [this]() TESSERA_REQUIRES(mutex_) { return open_streams_ == 0; });
    }
    thread_.reset();
  }

  void begin() {
    thread_->post([this] { connect(); });
  }

  bool send(const ControlMessage& message) override { return queue(encode(message, protocol_)); }
  bool send(const std::string& to, const Message& message) override {
    return queue(encode(to, message, protocol_));
  }
  bool send(const EngineMessage& message) override { return queue(encode(message, protocol_)); }

 private:
  bool queue(std::string frame) {
    std::shared_ptr<ClientStream> stream;
    {
      MutexLock lock(mutex_);
      if (!welcome_) return false;
      stream = stream_;
    }
    const Push pushed = stream->push(std::move(frame));
    if (pushed == Push::kFull)
      stream->cancel(resource_exhausted("the gateway does not read what it is sent"));
    return pushed == Push::kQueued;
  }

  // On thread_.
  void connect() {
    const auto identity = identity_.get();
    if (const Status expired = check_expiry(*identity); !expired.ok()) {
      if (is_stopping()) return;
      const bool beyond_renewal = expired.code() == Code::kPermissionDenied;
      events_.on_down(expired, beyond_renewal);
      if (!beyond_renewal) thread_->post_after(backoff_.next(), [this] { connect(); });
      return;
    }
    if (untried_.empty()) untried_ = book_.in_order();
    const Address address = untried_.front();
    untried_.erase(untried_.begin());
    Hello hello = events_.hello();
    hello.protocol = kProtocol;
    hello.worker = identity->name;
    const uint64_t attempt = ++attempt_;
    MutexLock lock(mutex_);
    if (stopping_) return;
    welcome_ = false;
    ++open_streams_;
    stream_ = ClientStream::start(
        make_channel(address, identity->ca_pem, identity.get(), std::string(kGatewayDnsName), options_),
        kAttachMethod, encode(ControlMessage(hello), kProtocol.highest), options_,
        {[this, address](Frame frame) { return on_frame(address, std::move(frame)); },
         [this](const Status& why, auto stream) { on_end(why, std::move(stream)); }});
    thread_->post_after(options_.connect_timeout, [this, attempt] {
      MutexLock inner(mutex_);
      if (attempt == attempt_ && !welcome_ && stream_ != nullptr)
        stream_->cancel(deadline_exceeded("the gateway does not answer"));
    });
  }

  Status on_frame(const Address& address, Frame frame) {
    if (auto* envelope = std::get_if<Envelope>(&frame)) {
      if (!is_welcome()) return invalid_argument("a session's message before Welcome");
      events_.on_message(std::move(envelope->to), std::move(envelope->message));
      return {};
    }
    if (auto* engine = std::get_if<EngineMessage>(&frame)) {
      if (!is_welcome()) return invalid_argument("an engine's request before Welcome");
      events_.on_engine(std::move(*engine));
      return {};
    }
    auto* message = std::get_if<ControlMessage>(&frame);
    if (message == nullptr) return invalid_argument("a message that does not belong on a control stream");
    if (const auto* welcome = std::get_if<Welcome>(message)) {
      TESSERA_ASSIGN_OR_RETURN(protocol_, agree_on_protocol(kProtocol, welcome->protocol, "the gateway"));
      book_.worked(address);
      MutexLock lock(mutex_);
      welcome_ = true;
      ever_welcome_ = true;
    } else if (const auto* goodbye = std::get_if<Goodbye>(message)) {
      final_ = goodbye->final;
    } else if (!is_welcome()) {
      return invalid_argument("a gateway's first message is Welcome");
    }
    events_.on_control(std::move(*message));
    return {};
  }
  bool is_welcome() {
    MutexLock lock(mutex_);
    return welcome_;
  }

  void on_end(const Status& why, std::shared_ptr<ClientStream> stream) {
    MutexLock lock(mutex_);
    welcome_ = false;
    stream_ = nullptr;
    thread_->post([this, why, stream = std::move(stream)] { after_end(why); });
    --open_streams_;
    idle_.notify_all();
  }
  // On thread_.
  void after_end(const Status& why) {
    if (is_stopping()) return;
    if (final_ || why.code() == Code::kPermissionDenied || why.code() == Code::kUnsupported) {
      stop_for_good(why);
      return;
    }
    bool was_up = false;
    {
      MutexLock lock(mutex_);
      was_up = ever_welcome_;
      ever_welcome_ = false;
    }
    if (was_up) {
      backoff_.reset();
      untried_.clear();
    }
    events_.on_down(why, false);
    if (untried_.empty())
      thread_->post_after(backoff_.next(), [this] { connect(); });
    else
      connect();
  }
  void stop_for_good(const Status& why) {
    if (!is_stopping()) events_.on_down(why, true);
  }
  bool is_stopping() {
    MutexLock lock(mutex_);
    return stopping_;
  }

  AddressBook book_;
  const LiveIdentity identity_;
  GatewayEvents& events_;
  const LinkOptions options_;
  Backoff backoff_;               // thread_ only
  std::vector<Address> untried_;  // thread_ only
  std::atomic<uint64_t> attempt_{0};
  std::atomic<int> protocol_{kProtocol.highest};
  std::atomic<bool> final_{false};
  Mutex mutex_;
  CondVar idle_;
  std::shared_ptr<ClientStream> stream_ TESSERA_GUARDED_BY(mutex_);
  int open_streams_ TESSERA_GUARDED_BY(mutex_) = 0;
  bool welcome_ TESSERA_GUARDED_BY(mutex_) = false;       // of the current stream
  bool ever_welcome_ TESSERA_GUARDED_BY(mutex_) = false;  // of the one that has just ended, too
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Executor> thread_ = make_thread_executor("gateway-link");
};

}  // namespace

Result<std::unique_ptr<GatewayStream>> GatewayStream::start(std::string_view addresses,
                                                            const LiveIdentity& identity,
                                                            GatewayEvents& events,
                                                            const LinkOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto list, parse_addresses(addresses));
  auto stream = std::make_unique<GatewayStreamImpl>(std::move(list), identity, events, options);
  stream->begin();
  return std::unique_ptr<GatewayStream>(std::move(stream));
}

}  // namespace tessera::wire
