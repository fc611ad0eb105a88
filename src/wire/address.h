// Where a process is reached: "HOST:PORT,HOST:PORT" (several network interfaces), "[::1]:7801" for IPv6.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

namespace tessera::wire {

struct Address {
  std::string host;  // without brackets
  int port = 0;
  std::string text() const;  // "HOST:PORT", IPv6 in brackets
  bool operator==(const Address&) const = default;
};

// At least one, at most 16. InvalidArgument names the part that is wrong.
Result<std::vector<Address>> parse_addresses(std::string_view list);

// "a,b:1,[::1]" → "a:PORT,b:1,[::1]:PORT": the port where a part has none.
std::string with_default_port(std::string_view list, int port);

// Where to listen: as above, but one, and port 0 asks for a free one.
Result<Address> parse_listen_address(std::string_view text);

// The addresses of one process in the order to try them: the one that worked last comes first. Thread-safe.
class AddressBook {
 public:
  explicit AddressBook(std::vector<Address> addresses) : addresses_(std::move(addresses)) {}
  std::vector<Address> in_order() const;
  void worked(const Address& address);

 private:
  mutable Mutex mutex_;
  std::vector<Address> addresses_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace tessera::wire
