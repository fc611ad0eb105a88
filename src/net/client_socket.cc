#include "net/client_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tessera::net {
namespace {

std::string tls_error() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "connection closed";
  const char* const reason = ERR_reason_error_string(code);
  return reason ? reason : "error " + std::to_string(code);
}

// Waits until `events` or the deadline.
Status wait_for(int fd, short events, Deadline deadline, std::string_view what) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return deadline_exceeded(std::string(what) + " took too long");
    pollfd descriptor{fd, events, 0};
    const int ready = ::poll(&descriptor, 1, static_cast<int>(std::min<int64_t>(left.count(), 60000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return io_error("poll", errno);
  }
}

Result<int> connect_address(const addrinfo& address, Deadline deadline) {
  const int fd = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return io_error("socket", errno);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  Status status;
  if (::connect(fd, address.ai_addr, address.ai_addrlen) != 0) {
    int error = errno;
    if (error == EINPROGRESS) {
      status = wait_for(fd, POLLOUT, deadline, "connecting");
      socklen_t size = sizeof(error);
      error = 0;
      if (status.ok()) ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (status.ok() && error != 0) status = unavailable(std::strerror(error));
  }
  if (status.ok()) return fd;
  ::close(fd);
  return status;
}

Result<int> connect_host(const Url& url, Deadline deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
  if (error != 0) return unavailable("cannot resolve '" + url.host + "': " + gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  Result<int> last = unavailable("no address");
  for (const addrinfo* address = found; address; address = address->ai_next) {
    last = connect_address(*address, deadline);
    if (last.ok()) return last;
  }
  return last.status().with_context("cannot connect to " + url.authority());
}

// OpenSSL's own socket BIO uses write(), which raises SIGPIPE when the peer has closed. The BIO's data is the
// fd.
int fd_of(BIO* bio) {
  return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio)));
}

int bio_result(BIO* bio, ssize_t count, int direction) {
  BIO_clear_retry_flags(bio);
  const bool again = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
  if (again) BIO_set_flags(bio, direction | BIO_FLAGS_SHOULD_RETRY);
  return static_cast<int>(count);
}

int bio_write(BIO* bio, const char* bytes, int count) {
  const ssize_t written = ::send(fd_of(bio), bytes, static_cast<size_t>(count), MSG_NOSIGNAL);
  return bio_result(bio, written, BIO_FLAGS_WRITE);
}

int bio_read(BIO* bio, char* bytes, int count) {
  const ssize_t received = ::recv(fd_of(bio), bytes, static_cast<size_t>(count), 0);
  return bio_result(bio, received, BIO_FLAGS_READ);
}

long bio_control(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO* make_bio(int fd) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* const made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tessera socket");
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  BIO* const bio = BIO_new(method);
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace

class TlsTrust {
 public:
  TlsTrust() : context(SSL_CTX_new(TLS_client_method()), &SSL_CTX_free) {}
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context;
};

Result<std::shared_ptr<const TlsTrust>> load_tls_trust(const std::string& ca_file) {
  auto trust = std::make_shared<TlsTrust>();
  SSL_CTX* const context = trust->context.get();
  if (!context) return internal_error("TLS is not available: " + tls_error());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(context);
  } else if (SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1) {
    return invalid_argument("CA file '" + ca_file + "': " + tls_error());
  }
  return std::shared_ptr<const TlsTrust>(std::move(trust));
}

struct ClientSocket::State {
  ~State() {
    if (ssl) {
      ERR_clear_error();
      if (!tls_broken) SSL_shutdown(ssl.get());
      ERR_clear_error();
    }
    ssl.reset();
    if (fd >= 0) ::close(fd);
  }

  // After an SSL call that returned `result`: ok when it should be tried again.
  Status wait_tls(int result, Deadline deadline, std::string_view what) {
    const int error = SSL_get_error(ssl.get(), result);
    if (error == SSL_ERROR_WANT_READ) return wait_for(fd, POLLIN, deadline, what);
    if (error == SSL_ERROR_WANT_WRITE) return wait_for(fd, POLLOUT, deadline, what);
    tls_broken = true;
    return unavailable(std::string(what) + " failed: " + tls_error());
  }

  Status handshake(const Url& url, Deadline deadline) {
    ssl.reset(SSL_new(trust->context.get()));
    if (!ssl) return internal_error("TLS: " + tls_error());
    BIO* const bio = make_bio(fd);
    SSL_set_bio(ssl.get(), bio, bio);  // takes it
    X509_VERIFY_PARAM* const verify = SSL_get0_param(ssl.get());
    if (X509_VERIFY_PARAM_set1_ip_asc(verify, url.host.c_str()) != 1) {
      ERR_clear_error();
      SSL_set_tlsext_host_name(ssl.get(), url.host.c_str());
      if (SSL_set1_host(ssl.get(), url.host.c_str()) != 1) return invalid_argument("TLS: unusable host name");
    }
    for (;;) {
      ERR_clear_error();
      const int result = SSL_connect(ssl.get());
      if (result == 1) return {};
      const long verdict = SSL_get_verify_result(ssl.get());
      if (verdict != X509_V_OK) {
        tls_broken = true;
        return Status(Code::kPermissionDenied, "the certificate of " + url.authority() + " is not trusted: " +
                                                   X509_verify_cert_error_string(verdict));
      }
      TESSERA_RETURN_IF_ERROR(wait_tls(result, deadline, "TLS handshake with " + url.authority()));
    }
  }

  int fd = -1;
  std::shared_ptr<const TlsTrust> trust;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl{nullptr, &SSL_free};
  bool tls_broken = false;
};

ClientSocket::ClientSocket(std::unique_ptr<State> state) : state_(std::move(state)) {}
ClientSocket::~ClientSocket() = default;

Result<std::unique_ptr<ClientSocket>> ClientSocket::connect(const Url& url,
                                                            const std::shared_ptr<const TlsTrust>& trust,
                                                            Deadline deadline) {
  auto state = std::make_unique<State>();
  TESSERA_ASSIGN_OR_RETURN(state->fd, connect_host(url, deadline));
  if (url.tls()) {
    TESSERA_CHECK(trust != nullptr, "https needs a TlsTrust");
    state->trust = trust;
    TESSERA_RETURN_IF_ERROR(state->handshake(url, deadline));
  }
  return std::unique_ptr<ClientSocket>(new ClientSocket(std::move(state)));
}

Status ClientSocket::write(std::string_view bytes, Deadline deadline) {
  while (!bytes.empty()) {
    if (state_->ssl) {
      ERR_clear_error();
      size_t written = 0;
      const int result = SSL_write_ex(state_->ssl.get(), bytes.data(), bytes.size(), &written);
      if (result != 1) TESSERA_RETURN_IF_ERROR(state_->wait_tls(result, deadline, "sending"));
      bytes.remove_prefix(written);
      continue;
    }
    const ssize_t written = ::send(state_->fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      TESSERA_RETURN_IF_ERROR(wait_for(state_->fd, POLLOUT, deadline, "sending"));
    } else if (errno != EINTR) {
      return unavailable(std::string("sending failed: ") + std::strerror(errno));
    }
  }
  return {};
}

Result<size_t> ClientSocket::read(std::span<char> into, Deadline deadline) {
  for (;;) {
    if (state_->ssl) {
      ERR_clear_error();
      size_t count = 0;
      const int result = SSL_read_ex(state_->ssl.get(), into.data(), into.size(), &count);
      if (result == 1) return count;
      if (SSL_get_error(state_->ssl.get(), result) == SSL_ERROR_ZERO_RETURN) return size_t{0};
      TESSERA_RETURN_IF_ERROR(state_->wait_tls(result, deadline, "receiving"));
      continue;
    }
    const ssize_t count = ::recv(state_->fd, into.data(), into.size(), 0);
    if (count >= 0) return static_cast<size_t>(count);
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      TESSERA_RETURN_IF_ERROR(wait_for(state_->fd, POLLIN, deadline, "receiving"));
    } else if (errno != EINTR) {
      return unavailable(std::string("receiving failed: ") + std::strerror(errno));
    }
  }
}

void ClientSocket::shut_down() const {
  ::shutdown(state_->fd, SHUT_RDWR);
}

bool ClientSocket::quiet() const {
  pollfd descriptor{state_->fd, POLLIN, 0};
  return ::poll(&descriptor, 1, 0) == 0 && !(state_->ssl && SSL_pending(state_->ssl.get()) > 0);
}

}  // namespace tessera::net
