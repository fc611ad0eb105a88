// One request's answer on its way: handlers put bytes in from any thread, the connection takes them out.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "net/http.h"
#include "net/response_encoder.h"

namespace tessera::net {

// The connection, as its exchange sees it. Callable from any thread.
class ExchangeOwner {
 public:
  virtual ~ExchangeOwner() = default;
  virtual void output_ready() = 0;  // take_output() has something and nobody takes it
  virtual void drop() = 0;          // break the connection
  virtual bool draining() const = 0;
};

// Thread-safe. The lock is a leaf: no callback runs under it.
class Exchange {
 public:
  enum class Output {
    kBytes,    // take again after they are sent
    kNothing,  // output_ready() will tell
    kDone,     // the answer is complete and was taken whole
  };

  // While the handler runs its output is not announced: the connection takes it when the handler returns.
  Exchange(std::weak_ptr<ExchangeOwner> owner, AnswerFrame frame, uint64_t max_buffered_bytes);

  // Handler side; see ResponseWriter.
  void send(HttpResponse response);
  void begin_stream(int status, std::string content_type, const Headers& headers);
  bool write(std::string_view chunk);
  void end_stream();
  bool client_gone() const;
  void on_client_gone(std::function<void()> callback);
  void abandon();  // the last writer is dropped

  // Connection side.
  Output take_output(std::string& bytes);
  // The client sends no more: queues bytes that it ignores, so that a vanished one is found out. Once.
  void probe_client();
  void mark_gone();
  bool keep_alive() const;  // final after kDone

 private:
  enum class State { kWaiting, kStreaming, kFinished, kGone };

  void decide_keep_alive() TESSERA_REQUIRES(mutex_);
  // True when the caller must announce the new output after it has released the lock.
  bool must_announce() TESSERA_REQUIRES(mutex_);
  void announce();

  const std::weak_ptr<ExchangeOwner> owner_;
  const uint64_t max_buffered_bytes_;
  mutable Mutex mutex_;
  AnswerFrame frame_ TESSERA_GUARDED_BY(mutex_);
  State state_ TESSERA_GUARDED_BY(mutex_) = State::kWaiting;
  std::string output_ TESSERA_GUARDED_BY(mutex_);
  uint64_t in_flight_ TESSERA_GUARDED_BY(mutex_) = 0;
  bool taken_care_of_ TESSERA_GUARDED_BY(mutex_) = true;  // somebody will call take_output()
  bool event_stream_ TESSERA_GUARDED_BY(mutex_) = false;
  bool between_events_ TESSERA_GUARDED_BY(mutex_) = true;
  bool probed_ TESSERA_GUARDED_BY(mutex_) = false;
  std::function<void()> gone_callback_ TESSERA_GUARDED_BY(mutex_);
};

// The handler's end of `exchange`.
std::shared_ptr<ResponseWriter> make_response_writer(std::shared_ptr<Exchange> exchange);

}  // namespace tessera::net
