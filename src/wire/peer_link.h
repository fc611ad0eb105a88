// One worker's stream to one peer. For this folder's .cc files.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/executor.h"
#include "wire/backoff.h"
#include "wire/client_stream.h"
#include "wire/peer_links.h"
#include "wire/protocol.h"

namespace tessera::wire {

// Dials on demand, on the executor's thread; the executor and the events must outlive it. Thread-safe.
// Lock order: this link's mutex, then its stream's.
class PeerLink final : public std::enable_shared_from_this<PeerLink> {
 public:
  PeerLink(std::string peer, LiveIdentity identity, uint64_t incarnation, PeerEvents& events,
           Executor& executor, const LinkOptions& options, RelayClient* relay);

  void set_addresses(std::string text, std::vector<Address> addresses);
  void send(const std::string& to, const Message& message);
  void probe();
  // Measures the round trip of a link that is up.
  void tick();
  std::optional<LinkReport> report() const;
  // Ends the link; afterwards at most the event that is being told comes to its end.
  void stop();
  bool stopped() const;
  // After stop(): whether the last stream's callbacks have returned.
  bool closed() const;
  void wait_closed();

 private:
  using Clock = std::chrono::steady_clock;
  enum class State { kIdle, kDialling, kUp, kStopped };
  struct PendingPing {
    uint64_t number = 0;
    Clock::time_point sent;
    uint64_t payload_bytes = 0;
  };

  void dial_later() TESSERA_REQUIRES(mutex_);
  void dial();
  Status on_frame(const Address& address, Frame frame);
  Status on_link_hello(const Address& address, const LinkHello& hello) TESSERA_REQUIRES(mutex_);
  void on_pong(const Pong& pong) TESSERA_REQUIRES(mutex_);
  void on_end(const Status& end, std::shared_ptr<ClientStream> stream);
  // Of a stream through a tunnel the tunnel knows better why it ended.
  Status reason(const Status& why) const;
  // True when the link has failed: on no address is anything to be tried now.
  bool end_stream(const Status& why, std::vector<std::string>& frames, bool& was_up);
  void send_ping(uint64_t payload_bytes) TESSERA_REQUIRES(mutex_);
  // The frames come back to the events as the messages that they were.
  void give_back(const std::vector<std::string>& frames, const Status& why);

  const std::string peer_;
  const LiveIdentity identity_;
  const uint64_t incarnation_;
  PeerEvents& events_;
  Executor& executor_;
  const LinkOptions options_;
  RelayClient* const relay_;  // may be null

  mutable Mutex mutex_;
  State state_ TESSERA_GUARDED_BY(mutex_) = State::kIdle;
  std::string address_text_ TESSERA_GUARDED_BY(mutex_);
  std::unique_ptr<AddressBook> book_ TESSERA_GUARDED_BY(mutex_);
  std::vector<Address> untried_ TESSERA_GUARDED_BY(mutex_);
  std::shared_ptr<ClientStream> stream_ TESSERA_GUARDED_BY(mutex_);
  int open_streams_ TESSERA_GUARDED_BY(mutex_) = 0;
  CondVar closed_;
  uint64_t attempt_ TESSERA_GUARDED_BY(mutex_) = 0;
  int protocol_ TESSERA_GUARDED_BY(mutex_) = kProtocol.highest;
  SendQueue waiting_ TESSERA_GUARDED_BY(mutex_);  // while dialling
  Backoff backoff_ TESSERA_GUARDED_BY(mutex_);
  Clock::time_point not_before_ TESSERA_GUARDED_BY(mutex_){};
  Status last_failure_ TESSERA_GUARDED_BY(mutex_);
  bool probe_wanted_ TESSERA_GUARDED_BY(mutex_) = false;
  uint64_t ping_number_ TESSERA_GUARDED_BY(mutex_) = 0;
  std::deque<PendingPing> pings_ TESSERA_GUARDED_BY(mutex_);
  double rtt_s_ TESSERA_GUARDED_BY(mutex_) = 0;
  double bytes_per_s_ TESSERA_GUARDED_BY(mutex_) = 0;
};

}  // namespace tessera::wire
