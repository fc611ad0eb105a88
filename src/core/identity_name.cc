#include "core/identity_name.h"

#include <algorithm>

namespace tessera {

Status check_identity_name(std::string_view name) {
  if (name.empty() || name.size() > kLongestIdentityName || name.front() == '-' || name.back() == '-' ||
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != std::string_view::npos)
    return invalid_argument("'" + std::string(name.substr(0, 80)) +
                            "' cannot name a process: 1 to 63 of a-z, 0-9 and hyphens inside");
  return {};
}

std::string make_identity_name(std::string_view text) {
  std::string name;
  for (char c : text.substr(0, text.find('.'))) {  // of a host name the first label
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (is_plain)
      name += c;
    else if (!name.empty() && name.back() != '-')
      name += '-';
  }
  name.resize(std::min(name.size(), kLongestIdentityName));
  while (!name.empty() && name.back() == '-') name.pop_back();
  return name.empty() ? "worker" : name;
}

}  // namespace tessera
