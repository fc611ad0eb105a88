#include "net/stream.h"

#include <fmt/core.h>

#include <array>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace tessera::net {
namespace ssl = asio::ssl;

namespace {

constexpr size_t kReadBytes = size_t{64} << 10;

class PlainStream final : public Stream {
 public:
  explicit PlainStream(Socket socket) : socket_(std::move(socket)) {
    ErrorCode ignored;
    socket_.non_blocking(true, ignored);
  }

  asio::awaitable<ErrorCode> handshake() override { co_return ErrorCode(); }

  asio::awaitable<ErrorCode> read(std::string& into) override {
    for (;;) {
      ErrorCode error;
      co_await socket_.async_wait(Socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
      if (error) co_return error;
      read_available(into, error);
      if (error != asio::error::would_block) co_return error;
    }
  }

  asio::awaitable<ErrorCode> write_some(std::string_view bytes, size_t& written) override {
    ErrorCode error;
    written = co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()),
                                                asio::redirect_error(asio::use_awaitable, error));
    co_return error;
  }

  asio::awaitable<void> finish_sending() override {
    ErrorCode ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    co_return;
  }

  bool may_be_half_open() const override { return true; }
  Socket& socket() override { return socket_; }

 private:
  void read_available(std::string& into, ErrorCode& error) {
    thread_local std::array<char, kReadBytes> scratch;
    const size_t count = socket_.read_some(asio::buffer(scratch), error);
    into.append(scratch.data(), count);
  }

  Socket socket_;
};

}  // namespace

class TlsServerContext {
 public:
  TlsServerContext() : context(ssl::context::tls_server) {}
  ssl::context context;
};

namespace {

class TlsStream final : public Stream {
 public:
  TlsStream(Socket socket, std::shared_ptr<TlsServerContext> context)
      : context_(std::move(context)), stream_(std::move(socket), context_->context) {}

  asio::awaitable<ErrorCode> handshake() override {
    ErrorCode error;
    co_await stream_.async_handshake(ssl::stream_base::server,
                                     asio::redirect_error(asio::use_awaitable, error));
    co_return error;
  }

  asio::awaitable<ErrorCode> read(std::string& into) override {
    ErrorCode error;
    const size_t count = co_await stream_.async_read_some(asio::buffer(scratch_),
                                                          asio::redirect_error(asio::use_awaitable, error));
    into.append(scratch_.data(), count);
    co_return error;
  }

  asio::awaitable<ErrorCode> write_some(std::string_view bytes, size_t& written) override {
    ErrorCode error;
    written = co_await stream_.async_write_some(asio::buffer(bytes.data(), bytes.size()),
                                                asio::redirect_error(asio::use_awaitable, error));
    co_return error;
  }

  asio::awaitable<void> finish_sending() override {
    ErrorCode ignored;
    co_await stream_.async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
    stream_.lowest_layer().shutdown(Socket::shutdown_send, ignored);
  }

  bool may_be_half_open() const override { return false; }
  Socket& socket() override { return stream_.next_layer(); }

 private:
  const std::shared_ptr<TlsServerContext> context_;
  ssl::stream<Socket> stream_;
  std::array<char, 4096> scratch_;
};

// HTTP/1.1 is all that is spoken; a client that offers only others gets no protocol rather than an alert.
int choose_http_1_1(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* offered,
                    unsigned int offered_length, void*) {
  static constexpr unsigned char kOurs[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kOurs, sizeof(kOurs), offered, offered_length) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

Result<std::shared_ptr<TlsServerContext>> load_tls_context(const std::string& certificate_file,
                                                           const std::string& key_file) {
  auto tls = std::make_shared<TlsServerContext>();
  ErrorCode error;
  tls->context.use_certificate_chain_file(certificate_file, error);
  if (error)
    return invalid_argument(fmt::format("TLS certificate '{}': {}", certificate_file, error.message()));
  tls->context.use_private_key_file(key_file, ssl::context::pem, error);
  if (error) return invalid_argument(fmt::format("TLS key '{}': {}", key_file, error.message()));
  SSL_CTX* const native = tls->context.native_handle();
  if (SSL_CTX_check_private_key(native) != 1)
    return invalid_argument(fmt::format("TLS key '{}' does not belong to '{}'", key_file, certificate_file));
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(native, choose_http_1_1, nullptr);
  return tls;
}

std::unique_ptr<Stream> make_plain_stream(Socket socket) {
  return std::make_unique<PlainStream>(std::move(socket));
}

std::unique_ptr<Stream> make_tls_stream(Socket socket, std::shared_ptr<TlsServerContext> context) {
  return std::make_unique<TlsStream>(std::move(socket), std::move(context));
}

}  // namespace tessera::net
