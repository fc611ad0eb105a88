#include "sim/network.h"

#include <algorithm>

namespace tessera::sim {

ProcessRef Network::process(const std::string& node) const {
  auto found = processes_.find(node);
  return found != processes_.end() && found->second->alive ? found->second : nullptr;
}

Time Network::way(const std::string& from, const std::string& to) {
  const LinkProfile& profile = link(from, to);
  return profile.latency + (profile.jitter.count() > 0 ? random_.between(Time(0), profile.jitter) : Time(0));
}

void Network::send(const ProcessRef& from, const std::string& to, Channel channel, size_t bytes, Task deliver,
                   Task lost) {
  const ProcessRef receiver = process(to);
  if (receiver == nullptr) {
    // Nobody listens: refused after a round trip, or no answer at all.
    const bool silent = is_blocked(from->node, to) || is_blocked(to, from->node);
    queue_.after(silent ? kStall : way(from->node, to) + way(to, from->node), from, std::move(lost));
    return;
  }
  const Key key{from->number, receiver->number, channel};
  Pipe& pipe = pipes_[key];
  if (pipe.from == nullptr) {
    pipe.from = from;
    pipe.to = receiver;
    pipe.generation = ++last_generation_;
  }
  const double seconds = static_cast<double>(bytes) / link(from->node, to).bytes_per_s;
  pipe.free_at = std::max(pipe.free_at, queue_.now()) + Time(static_cast<int64_t>(seconds * 1e9));
  pipe.last_arrival = std::max(pipe.free_at + way(from->node, to), pipe.last_arrival + Time(1));
  const uint64_t number = ++last_flight_;
  pipe.flights[number] = {std::move(deliver), std::move(lost), false};
  queue_.after(pipe.last_arrival - queue_.now(), nullptr,
               [this, key, generation = pipe.generation, number] { arrive(key, generation, number); });
}

void Network::arrive(const Key& key, uint64_t generation, uint64_t number) {
  auto found = pipes_.find(key);
  if (found == pipes_.end() || found->second.generation != generation) return;
  Pipe& pipe = found->second;
  if (!pipe.to->alive) {
    break_pipe(key);
    return;
  }
  if (is_blocked(pipe.from->node, pipe.to->node) || !pipe.stuck.empty()) {
    pipe.stuck.push_back(number);
    stall(key, pipe);
    return;
  }
  Flight& flight = pipe.flights.at(number);
  queue_.after(Time(0), pipe.to, flight.deliver);
  if (is_blocked(pipe.to->node, pipe.from->node)) {
    flight.arrived = true;
    stall(key, pipe);
  } else {
    pipe.flights.erase(number);
  }
}

void Network::stall(const Key& key, Pipe& pipe) {
  if (pipe.stalled) return;
  pipe.stalled = true;
  queue_.after(kStall, nullptr, [this, key, generation = pipe.generation] {
    auto found = pipes_.find(key);
    if (found == pipes_.end() || found->second.generation != generation || !found->second.stalled) return;
    break_pipe(key);
  });
}

void Network::break_pipe(const Key& key) {
  auto found = pipes_.find(key);
  if (found == pipes_.end()) return;
  Pipe pipe = std::move(found->second);
  pipes_.erase(found);
  const Time back = way(pipe.to->node, pipe.from->node);
  for (auto& [number, flight] : pipe.flights) queue_.after(back, pipe.from, std::move(flight.lost));
  const bool lost = !pipe.flights.empty();
  queue_.after(back, nullptr, [this, from = pipe.from, to = pipe.to, channel = std::get<2>(key), lost] {
    handler_(from, to, channel, lost);
  });
}

void Network::stop(const ProcessRef& process) {
  process->alive = false;
  process->paused = false;
  process->held.clear();
  // What it had sent arrives before its peers see the end of the stream.
  for (auto& [key, pipe] : pipes_) {
    if (pipe.from != process && pipe.to != process) continue;
    const ProcessRef& peer = pipe.from == process ? pipe.to : pipe.from;
    const bool silent = is_blocked(process->node, peer->node);
    const Time delay =
        silent ? kStall : std::max(way(process->node, peer->node), pipe.last_arrival - queue_.now());
    queue_.after(delay, nullptr, [this, key = key] { break_pipe(key); });
  }
}

void Network::close(const ProcessRef& a, const ProcessRef& b, Channel channel) {
  break_pipe({a->number, b->number, channel});
  break_pipe({b->number, a->number, channel});
}

void Network::unblock(const std::string& from, const std::string& to) {
  if (--blocked_[{from, to}] > 0) return;
  for (auto& [key, pipe] : pipes_) {
    if (pipe.from->node == from && pipe.to->node == to) {
      // Retransmitted in order.
      const Time delay = random_.between(Time(0), std::chrono::milliseconds(200));
      if (pipe.stuck.empty()) continue;
      pipe.stalled = false;
      queue_.after(delay, nullptr, [this, key = key, generation = pipe.generation] {
        auto found = pipes_.find(key);
        if (found == pipes_.end() || found->second.generation != generation) return;
        for (uint64_t number : std::exchange(found->second.stuck, {})) arrive(key, generation, number);
        if (auto healed = pipes_.find(key); healed != pipes_.end() && healed->second.stuck.empty())
          healed->second.stalled = false;
      });
    } else if (pipe.from->node == to && pipe.to->node == from && pipe.stuck.empty()) {
      pipe.stalled = false;
      std::erase_if(pipe.flights, [](const auto& entry) { return entry.second.arrived; });
    }
  }
}

void Network::reset(const std::string& a, const std::string& b) {
  std::vector<Key> hit;
  for (const auto& [key, pipe] : pipes_)
    if ((pipe.from->node == a && pipe.to->node == b) || (pipe.from->node == b && pipe.to->node == a))
      hit.push_back(key);
  for (const Key& key : hit) break_pipe(key);
}

}  // namespace tessera::sim
