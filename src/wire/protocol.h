// Versions of the protocol: how two builds agree on one, or say why they cannot.
#pragma once

#include <string_view>

#include "base/status.h"
#include "core/control_messages.h"

namespace tessera::wire {

// What this build speaks. Raise kHighest when a peer must not ignore something new; raise kLowest when the
// oldest version is no longer understood.
constexpr ProtocolRange kProtocol{1, 1};

// The highest version that both speak; kUnsupported with one sentence that names both ranges.
Result<int> agree_on_protocol(ProtocolRange ours, ProtocolRange theirs, std::string_view peer);

}  // namespace tessera::wire
