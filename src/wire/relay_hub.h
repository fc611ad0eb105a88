// The gateway's side of the tunnels (relay.h): pairs the streams of their two ends and pumps bytes between
// them, one chunk each way at a time, so that a slow reader slows its writer and nothing piles up. For this
// folder's .cc files.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <tessera/v1/services.grpc.pb.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/executor.h"
#include "base/mutex.h"
#include "wire/relay.h"

namespace tessera::wire {

class RelayEnd;
class RelayListener;

// Thread-safe. Must outlive the server whose streams it makes.
class RelayHub {
 public:
  using EndReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;
  using ListenReactor = grpc::ServerWriteReactor<tessera::v1::RelayOffer>;

  // `may_relay`: is this worker attached now? Must not block.
  RelayHub(std::function<bool(const std::string& worker)> may_relay, const RelayLimits& limits);
  ~RelayHub();

  // For a new stream of the worker of that certificate (empty: none was shown).
  EndReactor* open_end(grpc::CallbackServerContext* context, const std::string& worker);
  ListenReactor* open_listener(grpc::CallbackServerContext* context, const std::string& worker);
  RelayStats stats() const;

 private:
  friend class RelayEnd;
  friend class RelayListener;
  using Clock = std::chrono::steady_clock;
  struct Tunnel {
    std::string from, to;
    std::shared_ptr<RelayEnd> dialler, accepter;  // accepter: null until it attaches
    Clock::time_point opened;
    Clock::time_point seen_attached;  // both workers
  };

  // --- from the streams ---
  // The first chunk of an end: what it wants.
  Status begin(const std::shared_ptr<RelayEnd>& end, const tessera::v1::RelayChunk& first);
  // A stream is over; so is its tunnel, whose other end hears `why`.
  void ended(const std::shared_ptr<RelayEnd>& end, const Status& why);
  void gone(const std::shared_ptr<RelayEnd>& end);
  void listener_gone(const std::shared_ptr<RelayListener>& listener);

  Status open_tunnel(const std::shared_ptr<RelayEnd>& end, const std::string& target);
  Status accept_tunnel(const std::shared_ptr<RelayEnd>& end, const std::string& id);
  void sweep();
  void sweep_later();

  const std::function<bool(const std::string&)> may_relay_;
  const RelayLimits limits_;
  mutable Mutex mutex_;  // never held while a stream's is taken
  std::set<std::shared_ptr<RelayEnd>> ends_ TESSERA_GUARDED_BY(mutex_);
  std::map<std::string, Tunnel> tunnels_ TESSERA_GUARDED_BY(mutex_);                            // by id
  std::map<std::string, std::shared_ptr<RelayListener>> listeners_ TESSERA_GUARDED_BY(mutex_);  // by worker
  RelayStats stats_ TESSERA_GUARDED_BY(mutex_);
  std::atomic<uint64_t> bytes_{0};
  std::unique_ptr<Executor> timer_;  // thread "relay"
};

}  // namespace tessera::wire
