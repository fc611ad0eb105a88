// A simulated network. Every ordered pair of nodes has latency, jitter and bandwidth; between two processes
// there are streams (channels), each of which keeps its order while streams overtake one another. Bytes that
// cannot get through are held as TCP holds them; after kStall the stream is reset: its messages are lost and
// the sender hears so, though some may have arrived whose acknowledgement did not.
#pragma once

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "sim/event_queue.h"
#include "sim/random.h"

namespace tessera::sim {

using Channel = uint64_t;
constexpr Channel kDataChannel = 0;  // control streams have numbers of their own

struct LinkProfile {
  Time latency{};
  Time jitter{};
  double bytes_per_s = 1e9;
};

class Network {
 public:
  static constexpr Time kStall = std::chrono::milliseconds(1500);

  // A stream from `from` to `to` ended; `lost`: with messages of it. Called in the world, after the way.
  using ResetHandler =
      std::function<void(const ProcessRef& from, const ProcessRef& to, Channel channel, bool lost)>;

  Network(EventQueue& queue, uint64_t seed) : queue_(queue), random_(seed) {}
  void on_reset(ResetHandler handler) { handler_ = std::move(handler); }

  void set_link(const std::string& from, const std::string& to, LinkProfile profile) {
    links_[{from, to}] = profile;
  }
  const LinkProfile& link(const std::string& from, const std::string& to) { return links_[{from, to}]; }
  void start(const ProcessRef& process) { processes_[process->node] = process; }
  // Its peers hear of it when their streams break.
  void stop(const ProcessRef& process);
  ProcessRef process(const std::string& node) const;  // null: none runs there

  // `deliver` runs in the receiver, `lost` in the sender; one of them, or both.
  void send(const ProcessRef& from, const std::string& to, Channel channel, size_t bytes, Task deliver,
            Task lost);
  // Ends a stream in both directions.
  void close(const ProcessRef& a, const ProcessRef& b, Channel channel);
  // One direction of a partition.
  void block(const std::string& from, const std::string& to) { ++blocked_[{from, to}]; }
  void unblock(const std::string& from, const std::string& to);
  // All streams between two nodes break.
  void reset(const std::string& a, const std::string& b);

 private:
  struct Flight {
    Task deliver;
    Task lost;
    bool arrived = false;  // but not acknowledged
  };
  struct Pipe {
    ProcessRef from, to;
    Time free_at{0};
    Time last_arrival{0};
    std::map<uint64_t, Flight> flights;  // by number, in order
    std::vector<uint64_t> stuck;         // arrived at a partition
    bool stalled = false;                // the stall timer runs
    uint64_t generation = 0;
  };
  using Key = std::tuple<uint64_t, uint64_t, Channel>;

  bool is_blocked(const std::string& from, const std::string& to) const {
    auto found = blocked_.find({from, to});
    return found != blocked_.end() && found->second > 0;
  }
  void arrive(const Key& key, uint64_t generation, uint64_t flight);
  void stall(const Key& key, Pipe& pipe);
  void break_pipe(const Key& key);
  Time way(const std::string& from, const std::string& to);

  EventQueue& queue_;
  Random random_;
  ResetHandler handler_;
  std::map<std::string, ProcessRef> processes_;
  std::map<std::pair<std::string, std::string>, LinkProfile> links_;
  std::map<std::pair<std::string, std::string>, int> blocked_;
  std::map<Key, Pipe> pipes_;
  uint64_t last_flight_ = 0;
  uint64_t last_generation_ = 0;
};

}  // namespace tessera::sim
