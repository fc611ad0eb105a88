#include "worker/external/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "obs/log.h"

namespace tessera::worker::external {
namespace {

constexpr size_t kLongestLine = 4096;
constexpr std::chrono::milliseconds kPoll{100};

// Bytes in, whole lines out to the log.
class LineLog {
 public:
  explicit LineLog(const std::string& name) : name_(name) {}
  ~LineLog() {
    if (!line_.empty()) write();
  }
  void take(std::string_view bytes) {
    for (const char c : bytes) {
      if (c == '\n' || line_.size() >= kLongestLine) write();
      if (c != '\n' && c != '\r') line_ += c;
    }
    if (!line_.empty()) last_ = line_;
  }
  const std::string& last() const { return last_; }

 private:
  void write() {
    if (!line_.empty()) {
      obs::log_info(name_, line_);
      last_ = line_;
    }
    line_.clear();
  }
  const std::string& name_;
  std::string line_, last_;
};

// A group of its own, so that a signal reaches what it starts too; it ends when this thread's process does.
pid_t spawn(const std::vector<std::string>& command, int output, int error_pipe) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  // Only calls that are safe after fork() in a process with threads.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP, SIGCHLD}) ::signal(signal, SIG_DFL);
  const int null = ::open("/dev/null", O_RDONLY);
  if (null >= 0) ::dup2(null, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::execvp(arguments[0], arguments.data());
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(error_pipe, &error, sizeof error);
  ::_exit(127);
}

std::string how_it_ended(int status) {
  if (WIFEXITED(status)) return "it exited with status " + std::to_string(WEXITSTATUS(status));
  return std::string("signal ") + std::to_string(WTERMSIG(status)) + " ended it";
}

}  // namespace

Result<std::vector<std::string>> split_command(const std::string& command) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < command.size(); ++i) {
    const char c = command[i];
    if (quote == '\'') {
      if (c == '\'')
        quote = 0;
      else
        word += c;
    } else if (c == '\\' && i + 1 < command.size() &&
               (quote == 0 || command[i + 1] == '"' || command[i + 1] == '\\')) {
      word += command[++i];
      in_word = true;
    } else if (quote == '"') {
      if (c == '"')
        quote = 0;
      else
        word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      in_word = true;
    } else if (c == ' ' || c == '\t' || c == '\n') {
      if (in_word) words.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0) return invalid_argument("a quote is open at the end of the command");
  if (in_word) words.push_back(std::move(word));
  if (words.empty()) return invalid_argument("the command is empty");
  return words;
}

Supervisor::Supervisor(SupervisorOptions options, std::function<void(const std::string&)> on_exit)
    : options_(std::move(options)), on_exit_(std::move(on_exit)), thread_([this] { run(); }) {}

Supervisor::~Supervisor() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void Supervisor::kill_hung() {
  if (const pid_t pid = pid_; pid > 0) ::kill(-pid, SIGKILL);
}

// True when told to stop within `time`.
bool Supervisor::wait(std::chrono::milliseconds time) {
  MutexLock lock(mutex_);
  changed_.wait_for(mutex_, time, [this]() TESSERA_REQUIRES(mutex_) { return stopping_; });
  return stopping_;
}

void Supervisor::run() {
  auto pause = options_.first_backoff;
  for (;;) {
    bool lasted = false;
    const std::string why = run_once(lasted);
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
    }
    if (lasted) pause = options_.first_backoff;
    obs::log_warn("engine", "the engine's process has ended and will be started again",
                  {{"why", why}, {"pause_ms", pause.count()}});
    on_exit_(why);
    if (wait(pause)) return;
    pause = std::min(pause * 2, options_.longest_backoff);
    ++restarts_;
  }
}

std::string Supervisor::run_once(bool& lasted) {
  int output[2], failure[2];
  if (::pipe2(output, O_CLOEXEC) != 0) return "no pipe: " + std::string(std::strerror(errno));
  if (::pipe2(failure, O_CLOEXEC) != 0) {
    ::close(output[0]);
    ::close(output[1]);
    return "no pipe: " + std::string(std::strerror(errno));
  }
  const auto begun = std::chrono::steady_clock::now();
  const pid_t pid = spawn(options_.command, output[1], failure[1]);
  const int fork_error = errno;
  ::close(output[1]);
  ::close(failure[1]);
  int exec_error = 0;
  const bool failed = pid > 0 && ::read(failure[0], &exec_error, sizeof exec_error) == sizeof exec_error;
  ::close(failure[0]);
  if (pid < 0) {
    ::close(output[0]);
    return "it cannot be started: " + std::string(std::strerror(fork_error));
  }
  ::setpgid(pid, pid);
  pid_ = pid;
  if (!failed) obs::log_info("engine", "the engine's process is started", {{"pid", static_cast<int>(pid)}});
  LineLog log(options_.name);
  int status = 0;
  bool told = false;
  std::chrono::steady_clock::time_point kill_at{};
  bool open = true;
  for (;;) {
    if (open) {
      pollfd polled{output[0], POLLIN, 0};
      if (::poll(&polled, 1, static_cast<int>(kPoll.count())) > 0) {
        char buffer[4096];
        const ssize_t got = ::read(output[0], buffer, sizeof buffer);
        if (got > 0) log.take({buffer, static_cast<size_t>(got)});
        if (got == 0) open = false;
        if (got > 0) continue;
      }
    } else {
      std::this_thread::sleep_for(kPoll);
    }
    const pid_t ended = ::waitpid(pid, &status, WNOHANG);
    if (ended == pid || (ended < 0 && errno == ECHILD)) break;
    bool stopping = false;
    {
      MutexLock lock(mutex_);
      stopping = stopping_;
    }
    const auto now = std::chrono::steady_clock::now();
    if (stopping && !told) {
      told = true;
      kill_at = now + options_.stop_time;
      ::kill(-pid, SIGTERM);
    } else if (told && now >= kill_at) {
      ::kill(-pid, SIGKILL);
    }
  }
  pid_ = 0;
  ::kill(-pid, SIGKILL);  // what it left behind would hold its port and its GPU
  ::close(output[0]);
  lasted = std::chrono::steady_clock::now() - begun >= options_.lasting;
  if (failed) return "the program " + options_.command[0] + " cannot be run: " + std::strerror(exec_error);
  return how_it_ended(status) + (log.last().empty() ? "" : "; its last line: " + log.last().substr(0, 300));
}

}  // namespace tessera::worker::external
