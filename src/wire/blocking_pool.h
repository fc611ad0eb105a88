// A few threads for handlers that may wait, so that gRPC's own threads do not. For this folder's .cc files.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/executor.h"

namespace tessera::wire {

// Tasks wait in line behind at most what their server lets in. Must outlive the calls that post to it.
class BlockingPool {
 public:
  explicit BlockingPool(const std::string& name) {
    for (auto& thread : threads_) thread = make_thread_executor(name);
  }
  void run(std::function<void()> task) { threads_[next_++ % threads_.size()]->post(std::move(task)); }

 private:
  std::array<std::unique_ptr<Executor>, 4> threads_;
  std::atomic<size_t> next_{0};
};

}  // namespace tessera::wire
