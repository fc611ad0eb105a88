// Real servers for tests, on sockets in a folder of their own: Debian's postgresql and redis-server. Killed
// with the object. Where the package is not installed, missing() says so, for GTEST_SKIP.
#pragma once

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "store/postgres_database.h"
#include "store/redis_state.h"
#include "store/test_util.h"

namespace tessera::store {

// A program without input, with its output in `log`; as `user` where we are root and there is one.
inline pid_t start_program(const std::vector<std::string>& command, const std::filesystem::path& log,
                           const char* user) {
  const passwd* account = ::getuid() == 0 && user != nullptr ? ::getpwnam(user) : nullptr;
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child != 0) return child;
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(out, 1);
  ::dup2(out, 2);
  ::close(0);
  ::open("/dev/null", O_RDONLY);
  if (account != nullptr &&
      (::setgroups(0, nullptr) != 0 || ::setgid(account->pw_gid) != 0 || ::setuid(account->pw_uid) != 0))
    ::_exit(126);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setsid();  // no Ctrl-C of ours
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

inline bool runs_to_its_end(const std::vector<std::string>& command, const std::filesystem::path& log,
                            const char* user) {
  int status = -1;
  ::waitpid(start_program(command, log, user), &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class TestServer {
 public:
  virtual ~TestServer() { kill(); }
  const std::string& missing() const { return missing_; }  // empty: it runs
  const std::string& url() const { return url_; }

  // As a power cut would: the server and its children, at once.
  void kill() {
    if (process_ <= 0) return;
    signal(SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }
  // SIGSTOP, SIGCONT: lets it stand still, and go on. Its children lead groups of their own.
  void signal(int number) {
    const std::string process = std::to_string(process_);
    std::ifstream list("/proc/" + process + "/task/" + process + "/children");
    std::vector<pid_t> all = {process_};
    for (pid_t child = 0; list >> child;) all.push_back(child);
    for (const pid_t each : all) ::kill(each, number);
  }
  // Returns when it answers.
  virtual bool start() = 0;

 protected:
  bool run(const std::vector<std::string>& command, const char* user, const std::function<bool()>& answers) {
    for (int i = 0; i < 600; ++i) {
      // Also where it ended at once: what was killed may take a moment to be gone.
      if (process_ <= 0 || ::waitpid(process_, nullptr, WNOHANG) == process_)
        process_ = start_program(command, folder_.path() / "log", user);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      if (answers()) return true;
    }
    return false;
  }

  TestFolder folder_;
  std::string missing_;
  std::string url_;

 private:
  pid_t process_ = -1;
};

class TestPostgres final : public TestServer {
 public:
  TestPostgres() {
    const std::filesystem::path versions = "/usr/lib/postgresql";
    std::error_code none;
    for (const auto& version : std::filesystem::directory_iterator(versions, none))
      if (std::filesystem::exists(version.path() / "bin/initdb", none) && version.path() > programs_)
        programs_ = version.path();
    if (programs_.empty()) {
      missing_ = "PostgreSQL's server is not installed (package postgresql)";
      return;
    }
    if (const passwd* account = ::getuid() == 0 ? ::getpwnam("postgres") : nullptr)
      if (::chown(folder_.path().c_str(), account->pw_uid, account->pw_gid) != 0) missing_ = "chown failed";
    url_ = "postgresql://tessera@/postgres?host=" + folder_.path().string();
    if (!runs_to_its_end({(programs_ / "bin/initdb").string(), "-D", data(), "-U", "tessera", "-A", "trust",
                          "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"},
                         folder_.path() / "log", "postgres") ||
        !start())
      missing_ = "PostgreSQL does not start: see " + folder_.path().string();
  }
  bool start() override {
    return run({(programs_ / "bin/postgres").string(), "-D", data(), "-c", "listen_addresses=", "-c",
                "unix_socket_directories=" + folder_.path().string()},
               "postgres", [this] { return open_postgres(url_).ok(); });
  }
  // A database that holds nothing; each test has its own.
  std::string fresh() {
    const std::string name = "t" + std::to_string(++databases_);
    auto server = open_postgres(url_);
    if (!server.ok() || !(*server)->script("CREATE DATABASE " + name).ok()) return {};
    return "postgresql://tessera@/" + name + "?host=" + folder_.path().string();
  }

 private:
  std::string data() const { return (folder_.path() / "data").string(); }
  std::filesystem::path programs_;
  int databases_ = 0;
};

class TestRedis final : public TestServer {
 public:
  TestRedis() {
    url_ = "unix://" + (folder_.path() / "socket").string();
    std::error_code none;
    if (!std::filesystem::exists("/usr/bin/redis-server", none)) {
      missing_ = "Redis' server is not installed (package redis-server)";
      return;
    }
    if (!start()) missing_ = "Redis does not start";
  }
  bool start() override {
    return run({"/usr/bin/redis-server", "--port", "0", "--unixsocket", (folder_.path() / "socket").string(),
                "--save", "", "--appendonly", "no", "--dir", folder_.path().string(), "--maxmemory-policy",
                "allkeys-lru"},
               nullptr, [this] {
                 auto state = open_redis(url_);
                 return state.ok() && (*state)->get("any").ok();
               });
  }
};

// One of each for all tests of a program, started when first asked for.
template <typename Server>
Server& shared_server() {
  static Server server;
  return server;
}

}  // namespace tessera::store
