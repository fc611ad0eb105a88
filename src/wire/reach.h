// Whether a process answers at its addresses. For this folder's .cc files.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "wire/certificates.h"
#include "wire/link_options.h"

namespace tessera::wire {

// The first of "HOST:PORT,…" where a process with that name in its certificate completes a TLS handshake
// within `timeout`; empty: none does. All are dialled at once. Waits.
Result<std::string> reach_peer(std::string_view addresses, const Identity& identity,
                               const std::string& expected_name, const LinkOptions& options,
                               std::chrono::milliseconds timeout);

}  // namespace tessera::wire
