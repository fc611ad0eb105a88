#include <tessera/v1/services.grpc.pb.h>

#include <ctime>

#include "wire/channel.h"
#include "wire/control_client.h"

namespace tessera::wire {
namespace {

namespace pb = tessera::v1;

// A channel to the first address that answers with a gateway's certificate.
Result<std::unique_ptr<pb::Control::Stub>> reach_gateway(std::string_view addresses,
                                                         const std::string& ca_pem, const Identity* identity,
                                                         const LinkOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto list, parse_addresses(addresses));
  for (const Address& address : list) {
    auto channel = make_channel(address, ca_pem, identity, std::string(kGatewayDnsName), options);
    if (channel->WaitForConnected(std::chrono::system_clock::now() + options.connect_timeout))
      return pb::Control::NewStub(channel);
  }
  return unavailable("the gateway does not answer on " + std::string(addresses));
}

void set_deadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
}

// What the gateway issued must be for this key and of the authority that the token names.
Result<Identity> checked_identity(const pb::Membership& membership, std::string key_pem, std::string ca_pem) {
  Identity identity{membership.worker(), std::move(key_pem), membership.chain_pem(), std::move(ca_pem)};
  TESSERA_RETURN_IF_ERROR(check_identity(identity));
  return identity;
}

}  // namespace

Result<Identity> join(const JoinUrl& url, std::string_view wanted_name, const LinkOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(std::string ca_pem, fetch_ca(url.addresses, url.token.ca_sha256));
  TESSERA_ASSIGN_OR_RETURN(auto made, make_key_and_request(wanted_name.empty() ? "worker" : wanted_name));
  TESSERA_ASSIGN_OR_RETURN(auto stub, reach_gateway(url.addresses, ca_pem, nullptr, options));
  pb::JoinRequest request;
  request.set_token_secret(url.token.secret);
  request.set_csr_pem(made.csr_pem);
  request.set_wanted_name(std::string(wanted_name));
  pb::Membership membership;
  grpc::ClientContext context;
  set_deadline(context);
  if (const auto status = stub->Join(&context, request, &membership); !status.ok()) return from_grpc(status);
  return checked_identity(membership, std::move(made.key_pem), std::move(ca_pem));
}

Result<Identity> renew(std::string_view addresses, const Identity& identity, const LinkOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto csr_pem, make_request(identity.name, identity.key_pem));
  TESSERA_ASSIGN_OR_RETURN(auto info, certificate_info(identity.chain_pem));
  const bool expired = info.not_after_unix_s <= std::time(nullptr);
  TESSERA_ASSIGN_OR_RETURN(auto stub,
                           reach_gateway(addresses, identity.ca_pem, expired ? nullptr : &identity, options));
  pb::RenewRequest request;
  request.set_csr_pem(csr_pem);
  if (expired) request.set_expired_chain_pem(identity.chain_pem);
  pb::Membership membership;
  grpc::ClientContext context;
  set_deadline(context);
  if (const auto status = stub->Renew(&context, request, &membership); !status.ok()) return from_grpc(status);
  TESSERA_ASSIGN_OR_RETURN(auto renewed, checked_identity(membership, identity.key_pem, identity.ca_pem));
  if (renewed.name != identity.name) return corrupt("the gateway renewed another worker's certificate");
  return renewed;
}

Result<std::string> probe_reachability(std::string_view gateway_addresses, const Identity& identity,
                                       std::string_view advertised, const LinkOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(auto stub, reach_gateway(gateway_addresses, identity.ca_pem, &identity, options));
  pb::ProbeRequest request;
  request.set_addresses(std::string(advertised));
  pb::ProbeAnswer answer;
  grpc::ClientContext context;
  set_deadline(context);
  if (const auto status = stub->Probe(&context, request, &answer); !status.ok()) return from_grpc(status);
  return answer.reached();
}

}  // namespace tessera::wire
