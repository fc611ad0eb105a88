// doctor: what this machine can do, what is wrong with it, what to do about it.
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/memory.h"
#include "base/config.h"
#include "base/json.h"
#include "tensor/cpu/cpu_backend.h"
#include "tensor/cpu/limits.h"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

struct DoctorOptions {
  bool json = false;
  bool quick = false;
  template <typename V>
  void fields(V& v) {
    v("json", json, "machine-readable output");
    v("quick", quick, "skip the speed measurements");
  }
};

enum class Level { kGood, kNote, kBad };

struct Finding {
  Level level;
  std::string what;
  std::string advice;  // empty when there is nothing to do
};

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

Finding check_cpu() {
  const tensor::Isa isa = tensor::best_isa();
  std::string what = cpu_model() + ", " + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) +
                     " processors, kernels: " + std::string(tensor::isa_name(isa));
  if (isa == tensor::Isa::kPortable)
    return {Level::kBad, what, "without AVX2 the CPU backend is slow; use a machine with AVX2 or AVX-512"};
  return {Level::kGood, what, ""};
}

Finding check_memory_free() {
  const uint64_t available = available_memory();
  const std::string what = format_bytes(available) + " of memory free";
  if (available < (uint64_t{1} << 30))
    return {Level::kBad, what, "the default model needs about 1 GiB: end other programs"};
  return {Level::kGood, what, ""};
}

Finding check_home() {
  const fs::path home = tessera_home();
  std::error_code error;
  fs::create_directories(home / "models", error);
  if (error || ::access((home / "models").c_str(), W_OK) != 0)
    return {Level::kBad, home.string() + " cannot be written", "set TESSERA_HOME to a folder of yours"};
  struct statvfs disk {};
  ::statvfs(home.c_str(), &disk);
  const uint64_t free_bytes = uint64_t{disk.f_bavail} * disk.f_frsize;
  const std::string what = home.string() + ": " + format_bytes(free_bytes) + " of disk free";
  if (free_bytes < (uint64_t{1} << 30))
    return {Level::kNote, what, "models need room: free some, or set TESSERA_HOME to another disk"};
  return {Level::kGood, what, ""};
}

Finding check_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string what = "up to " + std::to_string(limit.rlim_max) + " open files";
  if (limit.rlim_max < 10500)
    return {Level::kNote, what, "for 10,000 clients raise the hard limit: ulimit -Hn 20000"};
  return {Level::kGood, what, ""};
}

Finding check_pip() {
  const int status = std::system("python3 -m pip --version >/dev/null 2>&1");
  if (status != 0)
    return {Level::kNote, "python3 -m pip does not run",
            "the default model comes through pip: apt-get install python3-pip"};
  return {Level::kGood, "python3 -m pip runs (it brings the default model)", ""};
}

Finding check_gpu() {
  std::error_code error;
  if (!fs::exists("/dev/nvidiactl", error))
    return {Level::kGood, "no NVIDIA GPU: the CPU backend serves", ""};
  return {Level::kNote, "an NVIDIA GPU is there; this build has no CUDA backend yet",
          "the CPU backend serves"};
}

int doctor(const DoctorOptions& options) {
  std::vector<Finding> findings{check_cpu(),   check_memory_free(), check_home(),
                                check_files(), check_pip(),         check_gpu()};
  if (!options.quick) {
    const auto pool = tensor::make_thread_pool(0);
    const tensor::MachineLimits limits = tensor::measure_limits(tensor::thread_count(*pool));
    char text[160];
    std::snprintf(text, sizeof text, "%d threads: %.1f GB/s of memory reads, %.0f GFLOP/s of float32 FMA",
                  tensor::thread_count(*pool), limits.read_gb_per_s, limits.fma_gflop_per_s);
    findings.push_back({Level::kGood, text, ""});
  }
  static constexpr const char* kNames[] = {"ok", "note", "problem"};
  bool bad = false;
  OrderedJson list = OrderedJson::array();
  for (const Finding& finding : findings) {
    bad = bad || finding.level == Level::kBad;
    const char* name = kNames[static_cast<int>(finding.level)];
    if (options.json) {
      list.push_back({{"level", name}, {"what", finding.what}, {"advice", finding.advice}});
    } else {
      std::printf("%-8s %s\n", name, finding.what.c_str());
      if (!finding.advice.empty()) std::printf("         → %s\n", finding.advice.c_str());
    }
  }
  if (options.json) std::printf("%s\n", dump_json(OrderedJson{{"findings", list}}).c_str());
  return bad ? kFailed : kDone;
}

}  // namespace

Command doctor_command() {
  auto options = std::make_shared<DoctorOptions>();
  return {"doctor", "what this machine can do, what is wrong with it, what to do about it", "",
          fields_of(*options), [options] { return doctor(*options); }};
}

}  // namespace tessera::app
