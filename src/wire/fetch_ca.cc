#include <poll.h>

#include "wire/address.h"
#include "wire/control_client.h"
#include "wire/openssl_handles.h"
#include "wire/socket.h"

namespace tessera::wire {
namespace {

using SteadyClock = std::chrono::steady_clock;
using TlsPtr = std::unique_ptr<SSL, OpensslFree<SSL_free>>;

// The handshake believes anybody: who it is, the caller finds out by the hash.
Result<TlsPtr> shake_hands(const Socket& socket, SSL_CTX* context, SteadyClock::time_point deadline) {
  TlsPtr tls(SSL_new(context));
  static constexpr unsigned char kAlpn[] = {2, 'h', '2'};
  if (tls == nullptr || SSL_set_fd(tls.get(), socket.fd()) != 1 ||
      SSL_set_alpn_protos(tls.get(), kAlpn, sizeof kAlpn) != 0)
    return openssl_error(Code::kInternal, "TLS cannot start");
  for (;;) {
    const int done = SSL_connect(tls.get());
    if (done == 1) return tls;
    const int want = SSL_get_error(tls.get(), done);
    if (want != SSL_ERROR_WANT_READ && want != SSL_ERROR_WANT_WRITE)
      return openssl_error(Code::kUnavailable, "no TLS there");
    if (!socket.wait(want == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline))
      return deadline_exceeded("the TLS handshake took too long");
  }
}

Result<std::string> fetch_from(const Address& address, const Digest& ca_sha256,
                               SteadyClock::time_point deadline) {
  TESSERA_ASSIGN_OR_RETURN(Socket socket, connect_to(address, deadline));
  TlsContextPtr context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return openssl_error(Code::kInternal, "TLS cannot start");
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  TESSERA_ASSIGN_OR_RETURN(TlsPtr tls, shake_hands(socket, context.get(), deadline));
  const STACK_OF(X509)* chain = SSL_get_peer_cert_chain(tls.get());
  for (int i = 0; chain != nullptr && i < sk_X509_num(chain); ++i) {
    BioPtr out(BIO_new(BIO_s_mem()));
    if (PEM_write_bio_X509(out.get(), sk_X509_value(chain, i)) != 1) continue;
    std::string pem = bio_text(out.get());
    const auto digest = certificate_sha256(pem);
    if (digest.ok() && *digest == ca_sha256) return pem;
  }
  return Status(
      Code::kPermissionDenied,
      address.text() + " is not the gateway that made this join token (another authority signs there)");
}

}  // namespace

Result<std::string> fetch_ca(std::string_view addresses, const Digest& ca_sha256,
                             std::chrono::milliseconds timeout) {
  TESSERA_ASSIGN_OR_RETURN(auto list, parse_addresses(addresses));
  Status first;
  for (const Address& address : list) {
    auto pem = fetch_from(address, ca_sha256, SteadyClock::now() + timeout);
    if (pem.ok()) return pem;
    if (first.ok()) first = pem.status();
  }
  return first;
}

}  // namespace tessera::wire
