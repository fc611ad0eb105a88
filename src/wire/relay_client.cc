#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <tessera/v1/services.grpc.pb.h>
#include <unistd.h>

#include <atomic>
#include <list>
#include <map>
#include <thread>

#include "core/identity_name.h"
#include "obs/log.h"
#include "wire/backoff.h"
#include "wire/channel.h"
#include "wire/relay.h"
#include "wire/socket.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;
using SteadyClock = std::chrono::steady_clock;

constexpr size_t kChunk = 64 << 10;
constexpr size_t kMaxTunnels = 256;  // of this process, both directions
constexpr std::chrono::milliseconds kStopCheck{100};
constexpr std::chrono::seconds kServerTimeout{5};  // our own server takes the connection

// One end in this process: the socket, and the stream that its bytes go through. On a thread of its own,
// with a second one for what the socket sends.
struct TunnelEnd {
  Socket socket;
  grpc::ClientContext context;
  std::thread thread;
  std::atomic<bool> over{false};
};

class RelayClientImpl final : public RelayClient {
 public:
  RelayClientImpl(std::vector<Address> gateway, LiveIdentity identity, const LinkOptions& options)
      : book_(std::move(gateway)),
        identity_(std::move(identity)),
        options_(options),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  ~RelayClientImpl() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      if (listening_ != nullptr) listening_->TryCancel();
      for (auto& end : ends_) {
        end->context.TryCancel();
        end->socket.shut_down();
      }
      stopped_.notify_all();
    }
    wake();
    if (listener_.joinable()) listener_.join();
    if (doorkeeper_.joinable()) doorkeeper_.join();
    for (auto& end : ends_) end->thread.join();  // nobody adds to it any more
  }

  void accept_to(const Address& server) override {
    listener_ = std::thread([this, server] { listen(server); });
  }

  Result<Address> dial(const std::string& worker) override {
    TESSERA_RETURN_IF_ERROR(check_identity_name(worker));
    MutexLock lock(mutex_);
    if (stopping_) return cancelled("the worker is stopping");
    if (auto found = doors_.find(worker); found != doors_.end()) return found->second.address;
    Door door;
    door.address.host = "127.0.0.1";
    TESSERA_ASSIGN_OR_RETURN(door.socket, listen_on_loopback(&door.address.port));
    const Address address = door.address;
    doors_.emplace(worker, std::move(door));
    if (!doorkeeper_.joinable()) doorkeeper_ = std::thread([this] { keep_doors(); });
    wake();
    return address;
  }

  Status failure(const std::string& worker) const override {
    MutexLock lock(mutex_);
    const auto found = failures_.find(worker);
    return found == failures_.end() ? Status() : found->second;
  }

 private:
  struct Door {
    Socket socket;
    Address address;
  };

  bool stopping() const {
    MutexLock lock(mutex_);
    return stopping_;
  }
  void wake() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.fd(), &one, sizeof one);
  }

  // A connection to the gateway, or null.
  std::shared_ptr<grpc::Channel> reach_gateway() {
    const auto identity = identity_.get();
    for (const Address& address : book_.in_order()) {
      auto channel =
          make_channel(address, identity->ca_pem, identity.get(), std::string(kGatewayDnsName), options_);
      const auto deadline = SteadyClock::now() + options_.connect_timeout;
      while (!stopping() && SteadyClock::now() < deadline)
        if (channel->WaitForConnected(std::chrono::system_clock::now() + kStopCheck)) {
          book_.worked(address);
          return channel;
        }
    }
    return nullptr;
  }

  // --- who dials ---
  void keep_doors() {
    for (;;) {
      std::vector<pollfd> polled{{wake_.fd(), POLLIN, 0}};
      std::vector<std::string> workers;
      {
        MutexLock lock(mutex_);
        if (stopping_) return;
        for (const auto& [worker, door] : doors_) {
          polled.push_back({door.socket.fd(), POLLIN, 0});
          workers.push_back(worker);
        }
      }
      if (::poll(polled.data(), polled.size(), -1) < 0) continue;
      uint64_t ignored = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_.fd(), &ignored, sizeof ignored);
      for (size_t i = 1; i < polled.size(); ++i) {
        if (polled[i].revents == 0) continue;
        Socket socket(::accept4(polled[i].fd, nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket.valid()) {  // out of descriptors, perhaps: not again at once
          std::this_thread::sleep_for(kStopCheck);
          continue;
        }
        pb::RelayChunk open;
        open.set_open(workers[i - 1]);
        start(std::move(socket), std::move(open), workers[i - 1]);
      }
    }
  }

  // --- who is dialled ---
  void listen(const Address& server) {
    Backoff backoff(options_);
    while (!stopping()) {
      const Status why = listen_once(server, backoff);
      obs::log_debug("wire", "no line for tunnels", {{"why", why.message()}});
      MutexLock lock(mutex_);
      stopped_.wait_for(mutex_, backoff.next(), [this]() TESSERA_REQUIRES(mutex_) { return stopping_; });
    }
  }
  Status listen_once(const Address& server, Backoff& backoff) {
    auto channel = reach_gateway();
    if (channel == nullptr) return unavailable("the gateway does not answer");
    auto stub = pb::Control::NewStub(channel);
    grpc::ClientContext context;
    {
      MutexLock lock(mutex_);
      if (stopping_) return cancelled("the worker is stopping");
      listening_ = &context;
    }
    auto reader = stub->RelayListen(&context, pb::RelayListenRequest());
    pb::RelayOffer offer;
    while (reader->Read(&offer)) {
      backoff.reset();
      accept(server, offer);
    }
    const grpc::Status end = reader->Finish();
    MutexLock lock(mutex_);
    listening_ = nullptr;
    return from_grpc(end);
  }
  void accept(const Address& server, const pb::RelayOffer& offer) {
    auto socket = connect_to(server, SteadyClock::now() + kServerTimeout);
    if (!socket.ok()) {  // the gateway ends the tunnel when nobody takes it
      obs::log_warn("wire", "a tunnel cannot reach our own server", {{"why", socket.status().message()}});
      return;
    }
    pb::RelayChunk chunk;
    chunk.set_accept(offer.tunnel());
    start(*std::move(socket), std::move(chunk), "");
  }

  // --- both ---
  // `dialled`: the worker behind it, empty when we are the one.
  void start(Socket socket, pb::RelayChunk first, const std::string& dialled) {
    MutexLock lock(mutex_);
    if (stopping_) return;
    for (auto it = ends_.begin(); it != ends_.end();) {
      if (!(*it)->over) {
        ++it;
        continue;
      }
      (*it)->thread.join();
      it = ends_.erase(it);
    }
    if (ends_.size() >= kMaxTunnels) {
      if (!dialled.empty()) failures_[dialled] = resource_exhausted("too many tunnels of this worker");
      return;
    }
    make_blocking(socket);
    ends_.push_back(std::make_unique<TunnelEnd>());
    TunnelEnd* end = ends_.back().get();
    end->socket = std::move(socket);
    end->thread = std::thread([this, end, first = std::move(first), dialled] {
      const Status status = run(*end, first, dialled);
      if (!status.ok())
        obs::log_debug("wire", "a tunnel has ended", {{"to", dialled}, {"why", status.message()}});
      end->socket.shut_down();  // only now: who dialled asks failure() when it sees this
      end->over = true;
    });
  }

  Status run(TunnelEnd& end, const pb::RelayChunk& first, const std::string& dialled) {
    auto channel = reach_gateway();
    if (channel == nullptr) return note(dialled, unavailable("the gateway does not answer"));
    auto stub = pb::Control::NewStub(channel);
    auto stream = stub->Relay(&end.context);
    std::thread up;
    if (stream->Write(first)) up = std::thread([&] { send_from(end.socket, *stream); });
    bool we_ended = false;
    pb::RelayChunk chunk;
    while (!we_ended && stream->Read(&chunk)) {
      static_cast<void>(note(dialled, {}));
      we_ended = chunk.part_case() != pb::RelayChunk::kData || !end.socket.send_all(chunk.data());
    }
    if (we_ended) end.context.TryCancel();
    end.socket.shut_down_reading();
    if (up.joinable()) up.join();
    const grpc::Status finished = stream->Finish();
    if (we_ended || finished.ok()) return {};
    return note(dialled, from_grpc(finished));
  }
  // Until the socket's end or the stream's; waits while the other end does not read.
  static void send_from(const Socket& socket,
                        grpc::ClientReaderWriterInterface<pb::RelayChunk, pb::RelayChunk>& stream) {
    std::string buffer(kChunk, '\0');
    pb::RelayChunk chunk;
    for (;;) {
      const ssize_t got = ::recv(socket.fd(), buffer.data(), buffer.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      chunk.set_data(buffer.data(), static_cast<size_t>(got));
      if (!stream.Write(chunk)) return;
    }
    stream.WritesDone();
  }
  Status note(const std::string& dialled, Status status) {
    if (dialled.empty()) return status;
    MutexLock lock(mutex_);
    failures_[dialled] = status;
    return status;
  }

  AddressBook book_;
  const LiveIdentity identity_;
  const LinkOptions options_;
  const Socket wake_;  // an eventfd: the doors have changed
  mutable Mutex mutex_;
  CondVar stopped_;
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  std::map<std::string, Door> doors_ TESSERA_GUARDED_BY(mutex_);  // by worker
  std::map<std::string, Status> failures_ TESSERA_GUARDED_BY(mutex_);
  std::list<std::unique_ptr<TunnelEnd>> ends_;  // guarded by mutex_ until stopping_
  grpc::ClientContext* listening_ TESSERA_GUARDED_BY(mutex_) = nullptr;
  std::thread listener_;
  std::thread doorkeeper_;
};

}  // namespace

std::string relay_address(std::string_view worker) {
  return std::string(kRelayScheme) + std::string(worker);
}

bool is_relay_address(std::string_view address) {
  return address.starts_with(kRelayScheme);
}

Result<std::unique_ptr<RelayClient>> RelayClient::create(std::string_view gateway_addresses,
                                                         const LiveIdentity& identity,
                                                         const LinkOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto list, parse_addresses(gateway_addresses));
  return std::unique_ptr<RelayClient>(std::make_unique<RelayClientImpl>(std::move(list), identity, options));
}

Result<std::vector<Address>> addresses_to_dial(std::string_view text, RelayClient* relay) {
  if (!is_relay_address(text)) return parse_addresses(text);
  if (relay == nullptr) return invalid_argument("this process dials through no gateway");
  TESSERA_ASSIGN_OR_RETURN(Address address, relay->dial(std::string(text.substr(kRelayScheme.size()))));
  return std::vector<Address>{std::move(address)};
}

}  // namespace tessera::wire
