// The cluster's own certificate authority and the certificates that it issues (ECDSA P-256, OpenSSL 3).
// Everything travels and rests as PEM. A certificate's common name is the process's identity; the TLS of
// every connection checks it.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/sha256.h"
#include "base/status.h"

namespace tessera::wire {

// A certificate that has expired renews with its key for so long; later its worker joins anew.
constexpr std::chrono::seconds kRenewalGrace = std::chrono::hours(30 * 24);

// DNS name in the certificate of every gateway, and of nobody else: what a worker expects to reach.
constexpr std::string_view kGatewayDnsName = "gateway.tessera";

// What a process proves itself with.
struct Identity {
  std::string name;       // common name of the certificate
  std::string key_pem;    // secret
  std::string chain_pem;  // its certificate, then the authority's
  std::string ca_pem;     // whom it believes
};

struct KeyAndRequest {
  std::string key_pem;
  std::string csr_pem;
};
// A new key and a request for a certificate of that name; the key never leaves its machine.
Result<KeyAndRequest> make_key_and_request(std::string_view name);
// A request for the key of an existing identity: to renew its certificate.
Result<std::string> make_request(std::string_view name, const std::string& key_pem);

struct CertificateInfo {
  std::string name;  // common name
  int64_t not_before_unix_s = 0;
  int64_t not_after_unix_s = 0;
  // Two thirds of its life are over.
  int64_t renew_unix_s() const { return not_before_unix_s + (not_after_unix_s - not_before_unix_s) * 2 / 3; }
  bool should_renew(int64_t now_unix_s) const { return now_unix_s >= renew_unix_s(); }
};
// Of the first certificate of a chain.
Result<CertificateInfo> certificate_info(const std::string& chain_pem);
// SHA-256 of the certificate's DER form: what a join token carries.
Result<Digest> certificate_sha256(const std::string& certificate_pem);

// kCorrupt unless its certificate is of its name, fits its key and is signed by its authority. Validity in
// time is not looked at.
Status check_identity(const Identity& identity);

// Keeps an identity in a folder (key.pem with mode 0600, chain.pem, ca.pem). kNotFound when there is none.
Status save_identity(const std::filesystem::path& folder, const Identity& identity);
Result<Identity> load_identity(const std::filesystem::path& folder);

// Immutable after opening; thread-safe.
class CertificateAuthority {
 public:
  struct Options {
    int64_t authority_days = 3650;
    std::chrono::seconds certificate_life = std::chrono::hours(30 * 24);
  };
  // The authority of that folder (ca.pem, ca.key with mode 0600), made when it is absent; the folder becomes
  // its owner's alone. A certificate without its key is kCorrupt: a new authority would silently expel every
  // worker.
  static Result<CertificateAuthority> open(const std::filesystem::path& folder, const Options& options,
                                           int64_t now_unix_s);
  static Result<CertificateAuthority> open(const std::filesystem::path& folder, int64_t now_unix_s) {
    return open(folder, Options{}, now_unix_s);
  }
  ~CertificateAuthority();
  CertificateAuthority(CertificateAuthority&&) noexcept;
  CertificateAuthority& operator=(CertificateAuthority&&) noexcept;

  // The chain (certificate, authority) for the key of a worker's request. The name is the caller's decision;
  // what the request says of a name counts for nothing. InvalidArgument: the request is not one, or its
  // signature does not prove its key, or the key is not ECDSA P-256.
  Result<std::string> issue(const std::string& csr_pem, std::string_view worker, int64_t now_unix_s) const;
  // The name that an expired certificate of this authority may be renewed for: the request is signed with its
  // key, and it expired no longer than kRenewalGrace ago. PermissionDenied otherwise, with the reason.
  Result<std::string> check_expired(const std::string& chain_pem, const std::string& csr_pem,
                                    int64_t now_unix_s) const;
  // Key and certificate of a gateway; carries kGatewayDnsName beside its name.
  Result<Identity> make_gateway_identity(std::string_view name, int64_t now_unix_s) const;

  const std::string& certificate_pem() const { return certificate_pem_; }
  const Digest& sha256() const { return sha256_; }

 private:
  struct Keys;
  CertificateAuthority();
  std::unique_ptr<Keys> keys_;
  std::string certificate_pem_;
  Digest sha256_{};
  std::chrono::seconds certificate_life_{};
};

}  // namespace tessera::wire
