// Sets of IP addresses as people write them: "10.0.0.0/8", "2001:db8::/32", "192.0.2.7".
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tessera::control {

// Immutable; thread-safe. IPv4 addresses and IPv4-mapped IPv6 ones are the same.
class AddressSet {
 public:
  AddressSet() = default;
  // InvalidArgument names the part that is no address or network.
  static Result<AddressSet> parse(const std::vector<std::string>& networks);
  bool empty() const { return networks_.empty(); }
  bool contains(std::string_view address) const;  // false for what is no address

 private:
  using Bytes = std::array<uint8_t, 16>;
  struct Network {
    Bytes address;
    int bits = 0;  // of the 128
  };
  std::vector<Network> networks_;
};

}  // namespace tessera::control
