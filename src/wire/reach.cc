#include "wire/reach.h"

#include "wire/channel.h"

namespace tessera::wire {

Result<std::string> reach_peer(std::string_view addresses, const Identity& identity,
                               const std::string& expected_name, const LinkOptions& options,
                               std::chrono::milliseconds timeout) {
  TESSERA_ASSIGN_OR_RETURN(auto list, parse_addresses(addresses));
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (const Address& address : list) {
    channels.push_back(make_channel(address, identity.ca_pem, &identity, expected_name, options));
    channels.back()->GetState(true);  // begins to connect
  }
  const auto deadline = std::chrono::system_clock::now() + timeout;
  for (size_t i = 0; i < list.size(); ++i)
    if (channels[i]->WaitForConnected(deadline)) return list[i].text();
  return std::string();
}

}  // namespace tessera::wire
