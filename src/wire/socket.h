// A TCP socket that closes itself, and how to get one. For this folder's .cc files.
#pragma once

#include <chrono>
#include <string_view>
#include <utility>

#include "wire/address.h"

namespace tessera::wire {

class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();
  int fd() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Waits until it is ready for `events` (poll); false at the deadline.
  bool wait(short events, std::chrono::steady_clock::time_point deadline) const;
  // Waits until all is taken; false: the other end is gone.
  bool send_all(std::string_view bytes) const;
  // Ends the waiting of other threads in receive or send.
  void shut_down() const;
  void shut_down_reading() const;

 private:
  int fd_;
};

// Not blocking.
Result<Socket> connect_to(const Address& address, std::chrono::steady_clock::time_point deadline);
// On 127.0.0.1, any free port.
Result<Socket> listen_on_loopback(int* port);
// For send_all and recv: blocking, without delay.
void make_blocking(const Socket& socket);

}  // namespace tessera::wire
