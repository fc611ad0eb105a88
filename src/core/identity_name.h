// Names of the cluster's processes: common names of certificates, prefixes of inboxes.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera {

constexpr size_t kLongestIdentityName = 63;

// 1 to 63 of [a-z0-9-], no hyphen at the ends. InvalidArgument otherwise.
Status check_identity_name(std::string_view name);
// The nearest valid name to a host name (its first label) or to what a person wrote; "worker" if nothing is
// left.
std::string make_identity_name(std::string_view text);

}  // namespace tessera
