// One client's connection: requests in order, one at a time, each with one Exchange. A coroutine on the
// connection's strand reads; while an answer is being made it watches the client.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "net/exchange.h"
#include "net/request_parser.h"
#include "net/server_core.h"
#include "net/stream.h"

namespace tessera::net {

class Connection final : public ExchangeOwner, public std::enable_shared_from_this<Connection> {
 public:
  enum class Admission { kServe, kRefuse };  // kRefuse: answer 503 and close

  Connection(std::shared_ptr<ServerCore> core, std::unique_ptr<Stream> stream, std::string remote_address,
             Admission admission);
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Callable from any thread.
  void start();
  bool due(std::chrono::nanoseconds now) const;  // check() has something to do
  void check();
  void begin_drain();  // closes when idle
  void output_ready() override;
  void drop() override;
  bool draining() const override { return core_->draining; }

 private:
  // What the client may do now decides what the passing of the read deadline means.
  enum class Phase { kIdle, kReceiving, kAnswering, kLingering };
  enum class Received { kRequest, kRefused, kClosed };

  // All below: on the strand.
  asio::awaitable<void> run();
  asio::awaitable<Received> receive(RequestParser& parser);
  asio::awaitable<bool> answer(RequestParser& parser);  // false: the connection ends
  asio::awaitable<void> watch_client();
  asio::awaitable<void> flush(std::shared_ptr<Exchange> exchange);
  asio::awaitable<ErrorCode> write_all(std::string_view bytes);
  asio::awaitable<void> refuse(int status, std::string message);
  asio::awaitable<void> linger();
  void enter(Phase phase, std::chrono::milliseconds time);
  void on_check();
  bool client_vanished();
  void wake_reader();
  void close();

  const std::shared_ptr<ServerCore> core_;
  const std::unique_ptr<Stream> stream_;
  const std::string remote_address_;
  const Admission admission_;
  std::shared_ptr<Exchange> exchange_;  // of the current request
  std::string input_;                   // bytes not yet parsed: of this request or pipelined ones
  Phase phase_ = Phase::kIdle;
  bool input_ended_ = false;
  bool answered_ = false;
  bool watching_ = false;
  bool timed_out_ = false;
  bool closed_ = false;
  std::atomic<bool> half_open_{false};  // an answer is being made for a client that sends no more
  std::atomic<int64_t> read_deadline_ns_;
  std::atomic<int64_t> write_deadline_ns_;
  std::atomic<int64_t> probe_at_ns_;
};

}  // namespace tessera::net
