#include "wire/address.h"

#include <algorithm>
#include <charconv>

namespace tessera::wire {
namespace {

constexpr size_t kMaxAddresses = 16;
constexpr size_t kMaxHost = 253;

Result<Address> parse_address(std::string_view text, int lowest_port) {
  const Status wrong = invalid_argument("'" + std::string(text.substr(0, 100)) + "' is no HOST:PORT");
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return wrong;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const std::string_view allowed = bracketed
                                       ? "0123456789abcdefABCDEF:.%"
                                       : "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
  if (host.empty() || host.size() > kMaxHost || host.find_first_not_of(allowed) != std::string_view::npos)
    return wrong;
  Address address{std::string(host), 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc() || end != port.data() + port.size() || address.port < lowest_port ||
      address.port > 65535)
    return wrong;
  return address;
}

}  // namespace

std::string Address::text() const {
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
}

Result<std::vector<Address>> parse_addresses(std::string_view list) {
  std::vector<Address> addresses;
  for (;;) {
    const size_t comma = list.find(',');
    TESSERA_ASSIGN_OR_RETURN(Address address, parse_address(list.substr(0, comma), 1));
    if (addresses.size() == kMaxAddresses) return invalid_argument("more than 16 addresses");
    addresses.push_back(std::move(address));
    if (comma == std::string_view::npos) return addresses;
    list.remove_prefix(comma + 1);
  }
}

std::string with_default_port(std::string_view list, int port) {
  std::string result;
  for (;;) {
    const size_t comma = list.find(',');
    const std::string_view part = list.substr(0, comma);
    const bool has_port = part.find(':') != std::string_view::npos && part.back() != ']';
    result.append(part);
    if (!has_port) result += ":" + std::to_string(port);
    if (comma == std::string_view::npos) return result;
    result += ',';
    list.remove_prefix(comma + 1);
  }
}

Result<Address> parse_listen_address(std::string_view text) {
  return parse_address(text, 0);
}

std::vector<Address> AddressBook::in_order() const {
  MutexLock lock(mutex_);
  return addresses_;
}

void AddressBook::worked(const Address& address) {
  MutexLock lock(mutex_);
  const auto found = std::find(addresses_.begin(), addresses_.end(), address);
  if (found != addresses_.end()) std::rotate(addresses_.begin(), found, found + 1);
}

}  // namespace tessera::wire
