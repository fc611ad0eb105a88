// Running another program to its end.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/status.h"

namespace tessera::fetch {

struct ProcessResult {
  int exit_status = 0;  // 128 + signal when a signal ended it
  std::string output;   // stdout and stderr together; the last 64 KiB
};

// argv[0] is looked up in PATH; no shell, no stdin. NotFound when there is no such program; past `limit` the
// program is killed: DeadlineExceeded.
Result<ProcessResult> run_process(const std::vector<std::string>& argv, std::chrono::seconds limit);

}  // namespace tessera::fetch
