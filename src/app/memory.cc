#include "app/memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace tessera::app {

uint64_t available_memory() {
  uint64_t available = 0;
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("MemAvailable:")) available = std::stoull(line.substr(13)) * 1024;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  uint64_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used && limit > used) available = std::min(available, limit - used);
  return available;
}

}  // namespace tessera::app
