// A real token over every hop: what readiness means.
#pragma once

#include <functional>

#include "cluster/session_manager.h"

namespace tessera::cluster {

// Opens a session with that one token, asks for one more, and calls back once: ok, or why none came. `token`
// must be in the model's vocabulary.
void probe(SessionManager& sessions, TokenId token, std::function<void(Status)> done);

}  // namespace tessera::cluster
