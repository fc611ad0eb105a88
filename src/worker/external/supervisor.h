// Supervisor: an engine's process that a worker starts, watches and starts again. Its output goes to our log.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

namespace tessera::worker::external {

// Words as a POSIX shell splits them: blanks, '…', "…", backslashes. Nothing is expanded; for that the
// command is sh -c '…'. InvalidArgument for an open quote, or no word at all.
Result<std::vector<std::string>> split_command(const std::string& command);

struct SupervisorOptions {
  std::vector<std::string> command;
  std::string name;                               // before its lines in our log
  std::chrono::milliseconds first_backoff{1000};  // doubles with each start that did not last
  std::chrono::milliseconds longest_backoff{60'000};
  std::chrono::milliseconds lasting{60'000};    // a process that lived so long starts again at once
  std::chrono::milliseconds stop_time{20'000};  // from SIGTERM to SIGKILL
};

class Supervisor {
 public:
  // `on_exit`: the process has ended, with a sentence why; on the supervisor's thread, before the pause.
  Supervisor(SupervisorOptions options, std::function<void(const std::string& why)> on_exit);
  ~Supervisor();  // ends the process and all that it started

  pid_t pid() const { return pid_; }  // 0: none runs
  int64_t restarts() const { return restarts_; }
  // Kills the process: it hangs. It is started again.
  void kill_hung();

 private:
  void run();
  std::string run_once(bool& lasted);
  bool wait(std::chrono::milliseconds time);

  const SupervisorOptions options_;
  const std::function<void(const std::string&)> on_exit_;
  std::atomic<pid_t> pid_{0};
  std::atomic<int64_t> restarts_{0};
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ TESSERA_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tessera::worker::external
