#include "net/exchange.h"

#include <utility>

namespace tessera::net {

Exchange::Exchange(std::weak_ptr<ExchangeOwner> owner, AnswerFrame frame, uint64_t max_buffered_bytes)
    : owner_(std::move(owner)), max_buffered_bytes_(max_buffered_bytes), frame_(std::move(frame)) {}

void Exchange::decide_keep_alive() {
  const auto owner = owner_.lock();
  if (!owner || owner->draining()) frame_.keep_alive = false;
}

bool Exchange::must_announce() {
  return !std::exchange(taken_care_of_, true);
}

void Exchange::announce() {
  if (const auto owner = owner_.lock()) owner->output_ready();
}

void Exchange::send(HttpResponse response) {
  std::function<void()> released;
  bool tell = false;
  {
    MutexLock lock(mutex_);
    if (state_ != State::kWaiting) return;
    decide_keep_alive();
    output_ += encode_response(response, frame_);
    state_ = State::kFinished;
    released = std::exchange(gone_callback_, nullptr);
    tell = must_announce();
  }
  if (tell) announce();
}

void Exchange::begin_stream(int status, std::string content_type, const Headers& headers) {
  bool tell = false;
  {
    MutexLock lock(mutex_);
    if (state_ != State::kWaiting) return;
    if (frame_.http_1_0) frame_.keep_alive = false;
    decide_keep_alive();
    event_stream_ = content_type.starts_with("text/event-stream");
    output_ += encode_stream_head(status, content_type, headers, frame_);
    state_ = State::kStreaming;
    tell = must_announce();
  }
  if (tell) announce();
}

bool Exchange::write(std::string_view chunk) {
  bool tell = false;
  bool too_slow = false;
  {
    MutexLock lock(mutex_);
    if (state_ != State::kStreaming) return false;
    if (frame_.head_only || chunk.empty()) return true;
    const uint64_t queued = output_.size() + in_flight_;
    too_slow = queued > 0 && queued + chunk.size() > max_buffered_bytes_;
    if (!too_slow) {
      if (frame_.http_1_0) {
        output_ += chunk;
      } else {
        append_chunk(output_, chunk);
      }
      between_events_ = chunk.ends_with("\n\n");
      tell = must_announce();
    }
  }
  if (too_slow) {
    if (const auto owner = owner_.lock()) owner->drop();
    mark_gone();
    return false;
  }
  if (tell) announce();
  return true;
}

void Exchange::end_stream() {
  std::function<void()> released;
  bool tell = false;
  {
    MutexLock lock(mutex_);
    if (state_ != State::kStreaming) return;
    if (!frame_.http_1_0 && !frame_.head_only) output_ += kLastChunk;
    state_ = State::kFinished;
    released = std::exchange(gone_callback_, nullptr);
    tell = must_announce();
  }
  if (tell) announce();
}

bool Exchange::client_gone() const {
  MutexLock lock(mutex_);
  return state_ == State::kGone;
}

void Exchange::on_client_gone(std::function<void()> callback) {
  std::function<void()> replaced;
  {
    MutexLock lock(mutex_);
    if (state_ == State::kFinished) return;
    if (state_ != State::kGone) {
      replaced = std::exchange(gone_callback_, std::move(callback));
      return;
    }
  }
  callback();
}

void Exchange::abandon() {
  bool waiting = false;
  bool streaming = false;
  {
    MutexLock lock(mutex_);
    waiting = state_ == State::kWaiting;
    streaming = state_ == State::kStreaming;
  }
  if (waiting) send(error_answer(500, "the server gave no answer to this request"));
  if (!streaming) return;
  if (const auto owner = owner_.lock()) owner->drop();
  mark_gone();
}

Exchange::Output Exchange::take_output(std::string& bytes) {
  MutexLock lock(mutex_);
  bytes.clear();
  bytes.swap(output_);
  in_flight_ = bytes.size();
  if (!bytes.empty()) return Output::kBytes;
  if (state_ == State::kFinished) return Output::kDone;
  taken_care_of_ = false;
  return Output::kNothing;
}

void Exchange::probe_client() {
  bool tell = false;
  {
    MutexLock lock(mutex_);
    if (probed_ || frame_.http_1_0) return;
    if (state_ == State::kWaiting) {
      output_ += "HTTP/1.1 100 Continue\r\n\r\n";
    } else if (state_ == State::kStreaming && event_stream_ && between_events_ && !frame_.head_only) {
      append_chunk(output_, ":\n\n");
    } else {
      return;
    }
    probed_ = true;
    tell = must_announce();
  }
  if (tell) announce();
}

void Exchange::mark_gone() {
  std::function<void()> callback;
  {
    MutexLock lock(mutex_);
    if (state_ == State::kFinished || state_ == State::kGone) return;
    state_ = State::kGone;
    output_.clear();
    callback = std::exchange(gone_callback_, nullptr);
  }
  if (callback) callback();
}

bool Exchange::keep_alive() const {
  MutexLock lock(mutex_);
  return frame_.keep_alive;
}

namespace {

class ExchangeWriter final : public ResponseWriter {
 public:
  explicit ExchangeWriter(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~ExchangeWriter() override { exchange_->abandon(); }

  void send(HttpResponse response) override { exchange_->send(std::move(response)); }
  void begin_stream(int status, std::string content_type, Headers headers) override {
    exchange_->begin_stream(status, std::move(content_type), headers);
  }
  bool write(std::string chunk) override { return exchange_->write(chunk); }
  void end_stream() override { exchange_->end_stream(); }
  bool client_gone() const override { return exchange_->client_gone(); }
  void on_client_gone(std::function<void()> callback) override {
    exchange_->on_client_gone(std::move(callback));
  }

 private:
  const std::shared_ptr<Exchange> exchange_;
};

}  // namespace

std::shared_ptr<ResponseWriter> make_response_writer(std::shared_ptr<Exchange> exchange) {
  return std::make_shared<ExchangeWriter>(std::move(exchange));
}

}  // namespace tessera::net
