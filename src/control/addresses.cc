#include "control/addresses.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>
#include <optional>

namespace tessera::control {
namespace {

constexpr int kMappedBits = 96;  // of ::ffff:0:0/96, where IPv4 lies

struct Parsed {
  std::array<uint8_t, 16> bytes{};
  bool v4 = false;
};

std::optional<Parsed> parse_address(std::string_view text) {
  if (const size_t zone = text.find('%'); zone != std::string_view::npos) text = text.substr(0, zone);
  const std::string copy(text);
  Parsed parsed;
  in_addr v4{};
  if (::inet_pton(AF_INET, copy.c_str(), &v4) == 1) {
    parsed.v4 = true;
    parsed.bytes[10] = parsed.bytes[11] = 0xff;
    std::memcpy(parsed.bytes.data() + 12, &v4, 4);
    return parsed;
  }
  in6_addr v6{};
  if (::inet_pton(AF_INET6, copy.c_str(), &v6) != 1) return std::nullopt;
  std::memcpy(parsed.bytes.data(), &v6, 16);
  return parsed;
}

}  // namespace

Result<AddressSet> AddressSet::parse(const std::vector<std::string>& networks) {
  AddressSet set;
  for (const std::string& text : networks) {
    const size_t slash = text.find('/');
    const auto address = parse_address(std::string_view(text).substr(0, slash));
    if (!address) return invalid_argument("'" + text + "' is no IP address or network (10.0.0.0/8)");
    const int width = address->v4 ? 32 : 128;
    int bits = width;
    if (slash != std::string::npos) {
      const char* end = text.data() + text.size();
      const auto read = std::from_chars(text.data() + slash + 1, end, bits);
      if (read.ec != std::errc() || read.ptr != end || bits < 0 || bits > width)
        return invalid_argument("'" + text + "' has no prefix length between 0 and " + std::to_string(width));
    }
    set.networks_.push_back({address->bytes, bits + (address->v4 ? kMappedBits : 0)});
  }
  return set;
}

bool AddressSet::contains(std::string_view text) const {
  const auto address = parse_address(text);
  if (!address) return false;
  for (const Network& network : networks_) {
    const size_t whole = static_cast<size_t>(network.bits) / 8;
    const int rest = network.bits % 8;
    if (std::memcmp(address->bytes.data(), network.address.data(), whole) != 0) continue;
    if (rest == 0) return true;
    const auto mask = static_cast<uint8_t>(0xff << (8 - rest));
    if (((address->bytes[whole] ^ network.address[whole]) & mask) == 0) return true;
  }
  return false;
}

}  // namespace tessera::control
