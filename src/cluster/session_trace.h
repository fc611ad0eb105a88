// SessionTrace: where the time of some steps of one session went, hop by hop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "core/messages.h"

namespace tessera::cluster {

struct TracedStep {
  int position = 0;             // of the token that came of it
  int64_t cycle_us = 0;         // at the gateway: from the token before to this one; 0: not seen
  std::vector<StepTrace> hops;  // in the order of the route
  // What the hops do not account for: all links of the cycle together, encryption and both ends' kernels
  // included. 0 where the cycle is unknown.
  int64_t links_us() const;
};
struct SessionTrace {
  SessionId session = 0;
  std::shared_ptr<const Route> route;
  std::vector<TracedStep> steps;  // ascending position; at least one
};

// The hops hear of a trace a few steps apart and each begins with its next: they are asked for so many more.
constexpr int kTraceSlack = 16;

// Puts together what the hops and the gateway saw. One thread.
class TraceCollector {
 public:
  using Done = std::function<void(Result<SessionTrace>)>;
  // Of `steps` decode steps over `route`, of the epoch in which it is made.
  TraceCollector(SessionId session, std::shared_ptr<const Route> route, int steps, Done done);

  void add(const StepTrace& trace);
  void token(int position, MonotonicTime now);
  bool complete() const { return complete_ >= steps_; }
  // Once: hands over the steps that are whole, or why there is none.
  void finish(const Status& why_none);

 private:
  struct Entry {
    std::vector<std::optional<StepTrace>> hops;
    std::optional<MonotonicTime> at;  // when the token came
  };
  Entry* entry_of(int position);
  bool whole(int position) const;

  const SessionId session_;
  const std::shared_ptr<const Route> route_;
  const int steps_;
  Done done_;
  std::map<int, Entry> entries_;  // by the token's position; bounded
  int complete_ = 0;
};

}  // namespace tessera::cluster
