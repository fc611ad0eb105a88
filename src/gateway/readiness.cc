#include "gateway/readiness.h"

#include <optional>

#include "base/mutex.h"

namespace tessera::gateway {

// Shared with the probe's callback, which may come after its time limit, or after the end of Readiness.
struct Readiness::State {
  State(const obs::Health& h, Probe p, Executor& e, const Clock& c, ReadinessOptions o)
      : health(h), probe(std::move(p)), executor(e), clock(c), options(o) {}

  const obs::Health& health;
  const Probe probe;
  Executor& executor;
  const Clock& clock;
  const ReadinessOptions options;

  Mutex mutex;
  bool closed TESSERA_GUARDED_BY(mutex) = false;
  uint64_t round TESSERA_GUARDED_BY(mutex) = 0;  // number of the running probe: a late answer has another one
  std::vector<Callback> waiting TESSERA_GUARDED_BY(mutex);
  std::optional<MonotonicTime> good_until TESSERA_GUARDED_BY(mutex);
  TimerId timer TESSERA_GUARDED_BY(mutex) = 0;

  void finish(uint64_t finished_round, const Status& status) {
    std::vector<Callback> callbacks;
    {
      MutexLock lock(mutex);
      if (closed || finished_round != round) return;
      ++round;
      executor.cancel(timer);
      callbacks.swap(waiting);
      good_until.reset();
      if (status.ok()) good_until = clock.now() + options.fresh;
    }
    for (Callback& callback : callbacks) callback(status);
  }
};

Readiness::Readiness(const obs::Health& health, Probe probe, Executor& executor, const Clock& clock,
                     ReadinessOptions options)
    : state_(std::make_shared<State>(health, std::move(probe), executor, clock, options)) {}

Readiness::~Readiness() {
  MutexLock lock(state_->mutex);
  state_->closed = true;
  state_->executor.cancel(state_->timer);
}

void Readiness::check(Callback callback) {
  std::string why;
  if (!state_->health.ready(&why)) return callback(unavailable(why));
  uint64_t round = 0;
  bool fresh = false;
  {
    MutexLock lock(state_->mutex);
    fresh = state_->good_until && state_->clock.now() < *state_->good_until;
    if (!fresh) {
      state_->waiting.push_back(std::move(callback));
      if (state_->waiting.size() > 1) return;
      round = ++state_->round;
      const auto late = [state = state_, round] {
        state->finish(round, unavailable("generation: no token came within the time limit"));
      };
      state_->timer = state_->executor.post_after(state_->options.timeout, late);
    }
  }
  if (fresh) return callback({});
  // A probe that answers within its call must not find our caller's locks held: results go by the executor.
  state_->probe([state = state_, round](Status status) {
    {
      MutexLock lock(state->mutex);
      if (state->closed) return;
    }
    const Status told = status.ok() ? Status() : unavailable("generation: " + std::string(status.message()));
    state->executor.post([state, round, told] { state->finish(round, told); });
  });
}

const obs::Health& Readiness::health() const {
  return state_->health;
}

}  // namespace tessera::gateway
