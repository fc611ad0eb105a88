// g++ 12 miscompiles a co_await inside a condition or behind &&: here it always stands alone in its
// statement.
#include "net/connection.h"

#include <poll.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <limits>

#include "obs/log.h"

namespace tessera::net {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr size_t kMaxPipelinedBytes = size_t{64} << 10;
constexpr std::chrono::milliseconds kLingerTime{2000};
constexpr std::chrono::milliseconds kProbeDelay{500};

int64_t now_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}
int64_t deadline_in(std::chrono::milliseconds time) {
  return now_ns() + std::chrono::nanoseconds(time).count();
}

}  // namespace

Connection::Connection(std::shared_ptr<ServerCore> core, std::unique_ptr<Stream> stream,
                       std::string remote_address, Admission admission)
    : core_(std::move(core)),
      stream_(std::move(stream)),
      remote_address_(std::move(remote_address)),
      admission_(admission),
      read_deadline_ns_(kNever),
      write_deadline_ns_(kNever),
      probe_at_ns_(kNever) {}

Connection::~Connection() {
  core_->remove(this);
}

void Connection::start() {
  core_->add(this, weak_from_this());
  auto self = shared_from_this();
  asio::co_spawn(stream_->socket().get_executor(), run(), [self](const std::exception_ptr& error) {
    if (error) obs::log_error("net", "a connection ended with an exception");
    self->close();
  });
}

asio::awaitable<void> Connection::run() {
  enter(Phase::kReceiving, core_->options.header_timeout);
  const ErrorCode handshake_error = co_await stream_->handshake();
  if (handshake_error) co_return;
  if (admission_ == Admission::kRefuse) {
    co_await refuse(503, "too many connections");
    co_return;
  }
  bool more = true;
  while (more && !closed_) {
    RequestParser parser({core_->options.max_header_bytes, core_->options.max_body_bytes});
    const Received received = co_await receive(parser);
    if (received == Received::kClosed) co_return;
    if (received == Received::kRefused) {
      ++core_->rejected;
      co_await refuse(parser.refusal().status, parser.refusal().message);
      co_return;
    }
    more = co_await answer(parser);
  }
  co_await linger();
}

asio::awaitable<Connection::Received> Connection::receive(RequestParser& parser) {
  bool body_begun = false;
  enter(Phase::kIdle, core_->options.idle_timeout);
  while (!closed_) {
    if (!input_.empty()) {
      if (!parser.started()) enter(Phase::kReceiving, core_->options.header_timeout);
      const size_t used = parser.put(input_);
      input_.erase(0, used);
      if (parser.refusal().status != 0) co_return Received::kRefused;
      if (parser.done()) {
        // Idle connections are many: give the memory back.
        if (input_.empty()) std::string().swap(input_);
        co_return Received::kRequest;
      }
      if (parser.header_done() && !body_begun) {
        body_begun = true;
        enter(Phase::kReceiving, core_->options.body_timeout);
        if (parser.expects_continue() && input_.empty()) {
          const ErrorCode failed = co_await write_all(kContinue);
          if (failed) co_return Received::kClosed;
        }
      }
    } else if (!parser.started() && core_->draining) {
      co_return Received::kClosed;
    }
    const ErrorCode error = co_await stream_->read(input_);
    if (timed_out_ && phase_ == Phase::kReceiving && !closed_) {
      ++core_->rejected;
      co_await refuse(408, "the request took too long to arrive");
      co_return Received::kClosed;
    }
    if (error) co_return Received::kClosed;
  }
  co_return Received::kClosed;
}

asio::awaitable<bool> Connection::answer(RequestParser& parser) {
  AnswerFrame frame;
  frame.http_1_0 = parser.http_1_0();
  frame.keep_alive = parser.keep_alive();
  HttpRequest request = parser.take_request();
  request.remote_address = remote_address_;
  frame.head_only = request.method == "HEAD";
  frame.request_id = request.id;
  ++core_->requests;

  enter(Phase::kAnswering, std::chrono::milliseconds::max());
  answered_ = false;
  const auto exchange =
      std::make_shared<Exchange>(weak_from_this(), std::move(frame), core_->options.max_buffered_bytes);
  exchange_ = exchange;
  try {
    core_->handler.handle(std::move(request), make_response_writer(exchange));
  } catch (const std::exception& error) {
    // The writer went with the handler's frame, so the client has its 500.
    obs::log_error("net", "a request handler failed", {{"what", error.what()}});
  }
  co_await flush(exchange);
  co_await watch_client();
  exchange_.reset();
  co_return !closed_ && exchange->keep_alive();
}

// Until the answer is complete or the client is gone. What the client sends meanwhile is kept for later.
asio::awaitable<void> Connection::watch_client() {
  watching_ = true;
  while (!closed_ && !answered_) {
    ErrorCode error;
    if (input_ended_ || input_.size() >= kMaxPipelinedBytes) {
      // Nothing to read: sleep until the answer is complete or the connection breaks.
      co_await stream_->socket().async_wait(Socket::wait_error,
                                            asio::redirect_error(asio::use_awaitable, error));
      if (!answered_ && client_vanished()) close();
      continue;
    }
    error = co_await stream_->read(input_);
    if (answered_ || !error || error == asio::error::operation_aborted) continue;
    if (error != asio::error::eof || !stream_->may_be_half_open()) {
      close();
    } else {
      input_ended_ = true;
      probe_at_ns_ = deadline_in(kProbeDelay);
      half_open_ = true;
    }
  }
  watching_ = false;
  half_open_ = false;
}

// Sends what the exchange holds. Runs at most once at a time per exchange: see Exchange::take_output().
asio::awaitable<void> Connection::flush(std::shared_ptr<Exchange> exchange) {
  std::string bytes;
  for (;;) {
    const Exchange::Output output = exchange->take_output(bytes);
    if (output == Exchange::Output::kNothing) co_return;
    if (output == Exchange::Output::kDone) break;
    const ErrorCode error = co_await write_all(bytes);
    if (error) {
      close();
      co_return;
    }
  }
  answered_ = true;
  if (watching_) wake_reader();
}

asio::awaitable<ErrorCode> Connection::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    write_deadline_ns_ = deadline_in(core_->options.write_timeout);
    size_t written = 0;
    const ErrorCode error = co_await stream_->write_some(bytes, written);
    write_deadline_ns_ = kNever;
    if (error) co_return error;
    bytes.remove_prefix(written);
  }
  co_return ErrorCode();
}

// For requests that never reach the handler. The connection ends: what follows on it cannot be trusted.
asio::awaitable<void> Connection::refuse(int status, std::string message) {
  AnswerFrame frame;
  frame.keep_alive = false;
  frame.request_id = request_id(nullptr);
  const std::string bytes = encode_response(error_answer(status, message), frame);
  const ErrorCode error = co_await write_all(bytes);
  if (!error) co_await linger();
}

// Reads on for a moment after the last answer: closing with unread bytes would send RST, and RST can reach
// the client before it has read that answer.
asio::awaitable<void> Connection::linger() {
  if (closed_) co_return;
  enter(Phase::kLingering, kLingerTime);
  co_await stream_->finish_sending();
  while (!closed_ && !timed_out_ && !input_ended_) {
    input_.clear();
    const ErrorCode error = co_await stream_->read(input_);
    if (error) break;
  }
}

void Connection::enter(Phase phase, std::chrono::milliseconds time) {
  phase_ = phase;
  timed_out_ = false;
  read_deadline_ns_ = time == std::chrono::milliseconds::max() ? kNever : deadline_in(time);
}

bool Connection::due(std::chrono::nanoseconds now) const {
  return read_deadline_ns_.load(std::memory_order_relaxed) <= now.count() ||
         write_deadline_ns_.load(std::memory_order_relaxed) <= now.count() ||
         half_open_.load(std::memory_order_relaxed);
}

void Connection::check() {
  asio::post(stream_->socket().get_executor(), [self = shared_from_this()] { self->on_check(); });
}

void Connection::on_check() {
  const int64_t now = now_ns();
  if (closed_) return;
  if (write_deadline_ns_ <= now) return close();
  if (half_open_ && client_vanished()) return close();
  if (half_open_ && probe_at_ns_ <= now && exchange_) {
    probe_at_ns_ = kNever;
    exchange_->probe_client();
  }
  if (read_deadline_ns_ > now) return;
  read_deadline_ns_ = kNever;
  timed_out_ = true;
  wake_reader();
}

bool Connection::client_vanished() {
  pollfd descriptor{stream_->socket().native_handle(), 0, 0};
  return ::poll(&descriptor, 1, 0) > 0 && (descriptor.revents & (POLLERR | POLLHUP)) != 0;
}

void Connection::wake_reader() {
  ErrorCode ignored;
  stream_->socket().cancel(ignored);
}

void Connection::begin_drain() {
  asio::post(stream_->socket().get_executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kIdle) self->close();
  });
}

void Connection::output_ready() {
  auto self = shared_from_this();
  asio::post(stream_->socket().get_executor(), [self] {
    if (self->closed_ || !self->exchange_) return;
    asio::co_spawn(self->stream_->socket().get_executor(), self->flush(self->exchange_),
                   [self](const std::exception_ptr& error) {
                     if (error) self->close();
                   });
  });
}

void Connection::drop() {
  asio::post(stream_->socket().get_executor(), [self = shared_from_this()] { self->close(); });
}

void Connection::close() {
  if (closed_) return;
  closed_ = true;
  ErrorCode ignored;
  stream_->socket().close(ignored);
  if (const auto exchange = exchange_) exchange->mark_gone();
}

}  // namespace tessera::net
