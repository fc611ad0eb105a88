// The identity of a process that runs for months: what its new connections show. A renewed certificate takes
// the place of the old one; connections that are up keep what they were made with.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "wire/certificates.h"

namespace tessera::wire {

// Copies are the same identity. Thread-safe.
class LiveIdentity {
 public:
  LiveIdentity(Identity identity)  // NOLINT(google-explicit-constructor): one that is never replaced
      : state_(std::make_shared<State>(std::move(identity))) {}

  const std::string& name() const { return state_->name; }  // the same for ever, as is the authority
  const std::string& ca_pem() const { return state_->ca_pem; }
  std::shared_ptr<const Identity> get() const {
    MutexLock lock(state_->mutex);
    return state_->current;
  }
  // InvalidArgument: of another name or authority.
  Status replace(Identity renewed) const {
    if (renewed.name != name() || renewed.ca_pem != ca_pem())
      return invalid_argument("a renewed identity keeps its name and its authority");
    auto next = std::make_shared<const Identity>(std::move(renewed));
    MutexLock lock(state_->mutex);
    state_->current = std::move(next);
    return {};
  }

 private:
  struct State {
    explicit State(Identity identity)
        : name(identity.name),
          ca_pem(identity.ca_pem),
          current(std::make_shared<const Identity>(std::move(identity))) {}
    const std::string name, ca_pem;
    Mutex mutex;
    std::shared_ptr<const Identity> current TESSERA_GUARDED_BY(mutex);
  };
  std::shared_ptr<State> state_;
};

}  // namespace tessera::wire
