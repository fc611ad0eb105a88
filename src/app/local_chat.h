// Asking a completer from the terminal: prints as it comes, stops on Ctrl-C.
#pragma once

#include <string>

#include "app/local_completer.h"

namespace tessera::app {

// While alive, SIGINT sets a flag instead of ending the program. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  bool interrupted() const;
  void reset();
};

struct Answer {
  Status status;
  bool interrupted = false;
  std::string text;
  api::Usage usage;
};

// Prints the answer's text to stdout as it comes; returns when it is whole, failed or interrupted.
Answer stream_answer(api::Completer& completer, api::CompletionRequest request, InterruptGuard& interrupts);

}  // namespace tessera::app
