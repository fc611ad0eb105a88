#include "wire/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "wire/openssl_handles.h"

namespace tessera::wire {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr int kBacklog = 64;

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) ::close(fd_);
}

bool Socket::wait(short events, SteadyClock::time_point deadline) const {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    pollfd entry{fd_, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

bool Socket::send_all(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void Socket::shut_down() const {
  ::shutdown(fd_, SHUT_RDWR);
}

void Socket::shut_down_reading() const {
  ::shutdown(fd_, SHUT_RD);
}

Result<Socket> connect_to(const Address& address, SteadyClock::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error =
          getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
      error != 0)
    return unavailable(address.text() + ": " + gai_strerror(error));
  const std::unique_ptr<addrinfo, OpensslFree<freeaddrinfo>> owner(found);
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Socket socket(::socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol));
    if (!socket.valid()) continue;
    const bool connected = ::connect(socket.fd(), at->ai_addr, at->ai_addrlen) == 0;
    if (!connected && (errno != EINPROGRESS || !socket.wait(POLLOUT, deadline))) continue;
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) return socket;
  }
  return unavailable(address.text() + " does not answer");
}

Result<Socket> listen_on_loopback(int* port) {
  Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  if (!socket.valid() || ::bind(socket.fd(), generic, size) != 0 || ::listen(socket.fd(), kBacklog) != 0 ||
      ::getsockname(socket.fd(), generic, &size) != 0)
    return io_error("cannot listen on the loopback interface", errno);
  *port = ntohs(address.sin_port);
  return socket;
}

void make_blocking(const Socket& socket) {
  const int flags = ::fcntl(socket.fd(), F_GETFL);
  ::fcntl(socket.fd(), F_SETFL, flags & ~O_NONBLOCK);
  const int on = 1;
  ::setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace tessera::wire
