#include "wire/peer_link.h"

namespace tessera::wire {
namespace {

constexpr const char* kLinkMethod = "/tessera.v1.Peer/Link";
constexpr uint64_t kProbeBytes = 1 << 20;
constexpr double kNewRttWeight = 0.25;
constexpr size_t kMaxPings = 8;

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

PeerLink::PeerLink(std::string peer, LiveIdentity identity, uint64_t incarnation, PeerEvents& events,
                   Executor& executor, const LinkOptions& options, RelayClient* relay)
    : peer_(std::move(peer)),
      identity_(std::move(identity)),
      incarnation_(incarnation),
      events_(events),
      executor_(executor),
      options_(options),
      relay_(relay),
      waiting_(options.max_queue_bytes),
      backoff_(options) {}

void PeerLink::set_addresses(std::string text, std::vector<Address> addresses) {
  MutexLock lock(mutex_);
  if (book_ != nullptr && text == address_text_) return;
  address_text_ = std::move(text);
  book_ = std::make_unique<AddressBook>(std::move(addresses));
  untried_.clear();
  not_before_ = {};  // the old address's failures say nothing about the new one
}

void PeerLink::send(const std::string& to, const Message& message) {
  Status why;
  std::string frame;
  {
    MutexLock lock(mutex_);
    frame = encode(to, message, protocol_);
    if (state_ == State::kUp) {
      switch (stream_->push(std::move(frame))) {
        case Push::kQueued:
          return;
        case Push::kFull:
          why = resource_exhausted(peer_ + " does not read what it is sent");
          stream_->cancel(why);
          break;
        case Push::kTooLarge:
          why = invalid_argument("a message of more than " + std::to_string(kMaxBundleBytes) + " bytes");
          break;
        case Push::kClosed:
          why = unavailable("the link to " + peer_ + " has just broken");
          break;
      }
    } else if (state_ == State::kStopped) {
      why = cancelled("the worker is stopping");
    } else if (book_ == nullptr) {
      why = unavailable("no address of " + peer_ + " is known");
    } else if (state_ == State::kIdle && Clock::now() < not_before_) {
      why = last_failure_;
    } else {
      if (waiting_.push(std::move(frame))) {
        if (state_ == State::kIdle) dial_later();
        return;
      }
      why = resource_exhausted("too much waits for the link to " + peer_);
    }
  }
  executor_.post([self = shared_from_this(), to, message, why] {
    if (!self->stopped()) self->events_.undelivered(self->peer_, to, message, why);
  });
}

void PeerLink::probe() {
  MutexLock lock(mutex_);
  if (state_ == State::kUp) {
    send_ping(0);
    send_ping(kProbeBytes);
    return;
  }
  probe_wanted_ = true;
  if (state_ == State::kIdle && book_ != nullptr && Clock::now() >= not_before_) dial_later();
}

void PeerLink::tick() {
  MutexLock lock(mutex_);
  if (state_ == State::kUp && pings_.empty()) send_ping(0);
}

std::optional<LinkReport> PeerLink::report() const {
  MutexLock lock(mutex_);
  if (rtt_s_ == 0) return std::nullopt;
  return LinkReport{peer_, rtt_s_, bytes_per_s_};
}

void PeerLink::stop() {
  MutexLock lock(mutex_);
  state_ = State::kStopped;
  if (stream_ != nullptr) stream_->cancel(cancelled("the worker is stopping"));
}

bool PeerLink::stopped() const {
  MutexLock lock(mutex_);
  return state_ == State::kStopped;
}

bool PeerLink::closed() const {
  MutexLock lock(mutex_);
  return open_streams_ == 0;
}

void PeerLink::wait_closed() {
  MutexLock lock(mutex_);
  closed_.wait(mutex_, [this]() TESSERA_REQUIRES(mutex_) { return open_streams_ == 0; });
}

void PeerLink::dial_later() {
  state_ = State::kDialling;
  executor_.post([self = shared_from_this()] { self->dial(); });
}

void PeerLink::dial() {
  MutexLock lock(mutex_);
  if (state_ != State::kDialling) return;
  if (untried_.empty()) untried_ = book_->in_order();
  const Address address = untried_.front();
  untried_.erase(untried_.begin());
  const uint64_t attempt = ++attempt_;
  ++open_streams_;
  const auto identity = identity_.get();
  stream_ = ClientStream::start(
      make_channel(address, identity->ca_pem, identity.get(), peer_, options_), kLinkMethod,
      encode(LinkMessage(LinkHello{kProtocol, identity->name, incarnation_}), kProtocol.highest), options_,
      {[self = shared_from_this(), address](Frame frame) {
         return self->on_frame(address, std::move(frame));
       },
       [self = shared_from_this()](const Status& why, auto stream) {
         self->on_end(why, std::move(stream));
       }});
  executor_.post_after(options_.connect_timeout, [self = shared_from_this(), attempt] {
    MutexLock inner(self->mutex_);
    if (self->state_ == State::kDialling && self->attempt_ == attempt && self->stream_ != nullptr)
      self->stream_->cancel(deadline_exceeded(self->peer_ + " does not answer"));
  });
}

Status PeerLink::on_frame(const Address& address, Frame frame) {
  const auto* message = std::get_if<LinkMessage>(&frame);
  if (message == nullptr) return invalid_argument("a message that does not belong on this end of a link");
  MutexLock lock(mutex_);
  if (const auto* hello = std::get_if<LinkHello>(message)) return on_link_hello(address, *hello);
  const auto* pong = std::get_if<Pong>(message);
  if (pong == nullptr || state_ != State::kUp) return invalid_argument("a link's answer out of turn");
  on_pong(*pong);
  return {};
}

Status PeerLink::on_link_hello(const Address& address, const LinkHello& hello) {
  if (state_ == State::kStopped) return {};
  if (state_ != State::kDialling || hello.worker != peer_) return invalid_argument("a LinkHello out of turn");
  TESSERA_ASSIGN_OR_RETURN(protocol_, agree_on_protocol(kProtocol, hello.protocol, peer_));
  state_ = State::kUp;
  book_->worked(address);
  untried_.clear();
  backoff_.reset();
  pings_.clear();
  for (auto& waiting : waiting_.drain()) stream_->push(std::move(waiting));
  send_ping(0);
  if (probe_wanted_) send_ping(kProbeBytes);
  probe_wanted_ = false;
  return {};
}

void PeerLink::send_ping(uint64_t payload_bytes) {
  if (pings_.size() >= kMaxPings) return;
  pings_.push_back({++ping_number_, Clock::now(), payload_bytes});
  stream_->push(encode(LinkMessage(Ping{ping_number_, payload_bytes}), protocol_));
}

void PeerLink::on_pong(const Pong& pong) {
  if (pings_.empty() || pings_.front().number != pong.number ||
      pings_.front().payload_bytes != pong.payload_bytes)
    return;
  const PendingPing ping = pings_.front();
  pings_.pop_front();
  const double elapsed = seconds(Clock::now() - ping.sent);
  if (ping.payload_bytes == 0)
    rtt_s_ = rtt_s_ == 0 ? elapsed : rtt_s_ + kNewRttWeight * (elapsed - rtt_s_);
  else
    bytes_per_s_ = static_cast<double>(ping.payload_bytes) / std::max(elapsed - rtt_s_, elapsed / 10);
}

Status PeerLink::reason(const Status& why) const {
  {
    MutexLock lock(mutex_);
    if (relay_ == nullptr || !is_relay_address(address_text_)) return why;
  }
  const Status tunnel = relay_->failure(peer_);
  return tunnel.ok() ? why : tunnel;
}

void PeerLink::on_end(const Status& end, std::shared_ptr<ClientStream> stream) {
  const Status why = reason(end);
  std::vector<std::string> frames;
  bool was_up = false;
  const bool over = end_stream(why, frames, was_up);
  executor_.post(
      [self = shared_from_this(), frames = std::move(frames), why, over, was_up, stream = std::move(stream)] {
        if (over && was_up && !self->stopped()) self->events_.down(self->peer_, why);
        if (over) self->give_back(frames, why);
      });
  MutexLock lock(mutex_);
  --open_streams_;
  closed_.notify_all();
}

bool PeerLink::end_stream(const Status& why, std::vector<std::string>& frames, bool& was_up) {
  MutexLock lock(mutex_);
  frames = stream_->unsent();
  stream_ = nullptr;
  if (state_ == State::kStopped) return false;
  was_up = state_ == State::kUp;
  if (!was_up && !untried_.empty()) {  // another address may do
    dial_later();
    return false;
  }
  state_ = State::kIdle;
  untried_.clear();
  last_failure_ = why.with_context("link to " + peer_);
  not_before_ = Clock::now() + backoff_.next();
  for (auto& waiting : waiting_.drain()) frames.push_back(std::move(waiting));
  return true;
}

void PeerLink::give_back(const std::vector<std::string>& frames, const Status& why) {
  for (const auto& bytes : frames) {
    auto frame = decode({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
    auto* envelope = frame.ok() ? std::get_if<Envelope>(&*frame) : nullptr;
    if (envelope != nullptr && !stopped())
      events_.undelivered(peer_, envelope->to, std::move(envelope->message), why);
  }
}

}  // namespace tessera::wire
