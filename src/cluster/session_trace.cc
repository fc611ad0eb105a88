#include "cluster/session_trace.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace tessera::cluster {

int64_t TracedStep::links_us() const {
  if (cycle_us == 0) return 0;
  int64_t rest = cycle_us;
  for (const StepTrace& hop : hops) rest -= hop.wake_us + hop.queue_us + hop.compute_us + hop.send_us;
  return std::max<int64_t>(rest, 0);
}

TraceCollector::TraceCollector(SessionId session, std::shared_ptr<const Route> route, int steps, Done done)
    : session_(session), route_(std::move(route)), steps_(steps), done_(std::move(done)) {}

// Reported by every hop, and between two tokens that the gateway saw.
bool TraceCollector::whole(int position) const {
  auto entry = entries_.find(position);
  auto before = entries_.find(position - 1);
  return entry != entries_.end() && entry->second.at && before != entries_.end() && before->second.at &&
         std::all_of(entry->second.hops.begin(), entry->second.hops.end(),
                     [](const auto& hop) { return hop.has_value(); });
}

// Null when there are too many: a hop that reports more steps than it was asked for is not listened to.
TraceCollector::Entry* TraceCollector::entry_of(int position) {
  const size_t most = 2 * static_cast<size_t>(steps_ + kTraceSlack);
  if (entries_.count(position) == 0 && entries_.size() >= most) return nullptr;
  Entry& entry = entries_[position];
  entry.hops.resize(route_->size());
  return &entry;
}

void TraceCollector::add(const StepTrace& trace) {
  if (trace.hop < 0 || trace.hop >= static_cast<int>(route_->size())) return;
  const int position = trace.position + 1;
  Entry* entry = entry_of(position);
  if (entry == nullptr || entry->hops[static_cast<size_t>(trace.hop)]) return;
  entry->hops[static_cast<size_t>(trace.hop)] = trace;
  if (whole(position)) ++complete_;
}

void TraceCollector::token(int position, MonotonicTime now) {
  Entry* entry = entry_of(position);
  if (entry == nullptr || entry->at) return;
  entry->at = now;
  for (int p : {position, position + 1})
    if (whole(p)) ++complete_;
}

void TraceCollector::finish(const Status& why_none) {
  if (!done_) return;
  SessionTrace trace{session_, route_, {}};
  for (const auto& [position, entry] : entries_) {
    if (!whole(position)) continue;
    const auto cycle = *entry.at - *entries_.at(position - 1).at;
    TracedStep step{position, std::chrono::duration_cast<std::chrono::microseconds>(cycle).count(), {}};
    for (const auto& hop : entry.hops) step.hops.push_back(*hop);
    trace.steps.push_back(std::move(step));
  }
  const Done done = std::exchange(done_, nullptr);
  if (trace.steps.empty())
    done(why_none);
  else
    done(std::move(trace));
}

}  // namespace tessera::cluster
