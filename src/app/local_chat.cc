#include "app/local_chat.h"

#include <csignal>
#include <cstdio>

#include "base/mutex.h"

namespace tessera::app {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;  // a signal handler can reach nothing else
struct sigaction g_outside {};                 // what SIGINT does without a guard
void on_interrupt(int) {
  g_interrupted = 1;
}

// Collects under a lock; the terminal thread prints.
class TerminalSink final : public api::CompletionSink {
 public:
  void on_start(const Start&) override {}
  bool on_delta(const api::Delta& delta) override {
    MutexLock lock(mutex_);
    pending_ += delta.text;
    wake_.notify_one();
    return true;
  }
  void on_done(const api::Usage& usage) override {
    MutexLock lock(mutex_);
    usage_ = usage;
    done_ = true;
    wake_.notify_one();
  }
  void on_error(const api::ApiError& error) override {
    MutexLock lock(mutex_);
    status_ = Status(error.status == 400 ? Code::kInvalidArgument : Code::kInternal, error.message);
    done_ = true;
    wake_.notify_one();
  }

  // Waits a little for news; true when the answer is over.
  bool take(std::string& text) {
    MutexLock lock(mutex_);
    wake_.wait_for(mutex_, std::chrono::milliseconds(50), [&] { return !pending_.empty() || done_; });
    text = std::exchange(pending_, {});
    return done_;
  }
  Status status() {
    MutexLock lock(mutex_);
    return status_;
  }
  api::Usage usage() {
    MutexLock lock(mutex_);
    return usage_;
  }

 private:
  Mutex mutex_;
  CondVar wake_;
  std::string pending_ TESSERA_GUARDED_BY(mutex_);
  bool done_ TESSERA_GUARDED_BY(mutex_) = false;
  Status status_ TESSERA_GUARDED_BY(mutex_);
  api::Usage usage_ TESSERA_GUARDED_BY(mutex_);
};

}  // namespace

InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // no SA_RESTART: a read at the prompt ends, too
  sigaction(SIGINT, &action, &g_outside);
}
InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &g_outside, nullptr);
}
bool InterruptGuard::interrupted() const {
  return g_interrupted != 0;
}
void InterruptGuard::reset() {
  g_interrupted = 0;
}

Answer stream_answer(api::Completer& completer, api::CompletionRequest request, InterruptGuard& interrupts) {
  auto sink = std::make_shared<TerminalSink>();
  auto cancel = completer.submit(std::move(request), sink);
  Answer answer;
  for (bool over = false; !over;) {
    std::string text;
    over = sink->take(text);
    answer.text += text;
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
    if (interrupts.interrupted() && !over) {
      cancel();
      answer.interrupted = true;
      return answer;
    }
  }
  answer.status = sink->status();
  answer.usage = sink->usage();
  return answer;
}

}  // namespace tessera::app
