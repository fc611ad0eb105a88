// A client's byte stream, plain or TLS, behind one interface: the session's code is compiled once.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera::net {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;
using Socket = asio::ip::tcp::socket;

// Used on its socket's strand only: at most one read and one write at a time. cancel() of the socket ends
// both with operation_aborted, and no byte is lost.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual asio::awaitable<ErrorCode> handshake() = 0;
  // Appends at least one byte, at most 64 KiB. A waiting plain stream holds no buffer.
  virtual asio::awaitable<ErrorCode> read(std::string& into) = 0;
  virtual asio::awaitable<ErrorCode> write_some(std::string_view bytes, size_t& written) = 0;
  // Tells the peer that no more will come.
  virtual asio::awaitable<void> finish_sending() = 0;
  // After the end of the peer's bytes it may still be there, reading.
  virtual bool may_be_half_open() const = 0;
  virtual Socket& socket() = 0;
};

// A server's certificate and key. Immutable, shared by its connections.
class TlsServerContext;
// InvalidArgument naming the file that cannot be used.
Result<std::shared_ptr<TlsServerContext>> load_tls_context(const std::string& certificate_file,
                                                           const std::string& key_file);

std::unique_ptr<Stream> make_plain_stream(Socket socket);
std::unique_ptr<Stream> make_tls_stream(Socket socket, std::shared_ptr<TlsServerContext> context);

}  // namespace tessera::net
