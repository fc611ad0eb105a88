// users: the people who administer a running gateway; audit: what they did.
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "app/commands.h"
#include "app/gateway_client.h"
#include "net/url.h"

namespace tessera::app {
namespace {

constexpr const char* kUsers = "/api/v1/admin/users";

struct UsersOptions : ClusterOptions {
  std::vector<std::string> words;
  std::string role;
  template <typename V>
  void fields(V& v) {
    v("=ACTION", words, "list, add NAME, role NAME, password NAME, disable NAME, enable NAME, remove NAME");
    v("role", role, "viewer, operator or admin");
    ClusterOptions::fields(v);
  }
};

// One line of stdin; not shown on a terminal. Never an argument: those are for everybody to see.
Result<std::string> read_password() {
  const bool terminal = isatty(STDIN_FILENO) != 0;
  termios shown{};
  if (terminal) {
    std::fprintf(stderr, "password: ");
    tcgetattr(STDIN_FILENO, &shown);
    termios hidden = shown;
    hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &hidden);
  }
  std::string line;
  const bool read = static_cast<bool>(std::getline(std::cin, line));
  if (terminal) {
    tcsetattr(STDIN_FILENO, TCSANOW, &shown);
    std::fprintf(stderr, "\n");
  }
  if (!read || line.empty()) return invalid_argument("the password comes as a line on stdin");
  return line;
}

int done(const UsersOptions& options, const Result<Json>& answer, const std::string& text) {
  if (!answer.ok()) return report(answer.status());
  std::printf("%s\n", options.json ? dump_json(*answer).c_str() : text.c_str());
  return kDone;
}

int list(const UsersOptions& options) {
  auto answer = ask_gateway(options, "GET", kUsers);
  if (!answer.ok()) return report(answer.status());
  if (options.json) return done(options, answer, {});
  std::printf("%-24s %-10s %-22s %s\n", "NAME", "ROLE", "SINCE", "STATE");
  for (const Json& user : (*answer)["users"])
    std::printf("%-24s %-10s %-22s %s\n", text_at(user, "username").c_str(), text_at(user, "role").c_str(),
                text_at(user, "created_at").c_str(), user.value("disabled", false) ? "disabled" : "active");
  return kDone;
}

int users(const UsersOptions& options) {
  const std::vector<std::string>& words = options.words;
  if (words.empty() || (words.size() == 1 && words[0] == "list")) return list(options);
  const auto usage = [] {
    return report(
        invalid_argument("tessera users list, add NAME [--role R], role NAME --role R, password NAME, "
                         "disable NAME, enable NAME, "
                         "remove NAME"));
  };
  if (words.size() != 2) return usage();
  const std::string& action = words[0];
  const std::string& name = words[1];
  const std::string path = std::string(kUsers) + "/" + net::percent_encode(name);
  if (action == "remove") return done(options, ask_gateway(options, "DELETE", path), name + " is removed");
  if (action == "disable" || action == "enable")
    return done(options, ask_gateway(options, "PUT", path, Json{{"disabled", action == "disable"}}),
                name + " is " + action + "d");
  if (action == "role" && !options.role.empty())
    return done(options, ask_gateway(options, "PUT", path, Json{{"role", options.role}}),
                name + " is now " + options.role);
  if (action != "add" && action != "password") return usage();
  auto password = read_password();
  if (!password.ok()) return report(password.status());
  if (action == "password")
    return done(options, ask_gateway(options, "PUT", path, Json{{"password", *password}}),
                name + " has a new password; earlier logins have ended");
  const std::string role = options.role.empty() ? "viewer" : options.role;
  return done(
      options,
      ask_gateway(options, "POST", kUsers, Json{{"username", name}, {"role", role}, {"password", *password}}),
      name + " may log in as " + role);
}

struct AuditOptions : ClusterOptions {
  std::string action;
  int entries = 50;
  template <typename V>
  void fields(V& v) {
    v("=ACTION", action, "list, or verify: whether every entry is as it was written; status 1 if not");
    v("entries", entries, "how many of the last ones to list");
    ClusterOptions::fields(v);
  }
};

int verify(const AuditOptions& options) {
  auto answer = ask_gateway(options, "GET", "/api/v1/admin/audit/verify");
  if (!answer.ok()) return report(answer.status());
  const bool intact = answer->value("intact", false);
  const auto count = std::to_string(answer->value("entries", int64_t{0}));
  if (options.json)
    std::printf("%s\n", dump_json(*answer).c_str());
  else if (intact)
    std::printf("%s entries, all as they were written; the last one's seal is %s\n", count.c_str(),
                text_at(*answer, "last_seal").c_str());
  else
    std::printf("not as it was written: %s (%s entries before it are)\n", text_at(*answer, "problem").c_str(),
                count.c_str());
  return intact ? kDone : kFailed;
}

int audit(const AuditOptions& options) {
  if (options.action == "verify") return verify(options);
  if (!options.action.empty() && options.action != "list")
    return report(invalid_argument("tessera audit [list], or tessera audit verify"));
  auto answer = ask_gateway(options, "GET",
                            "/api/v1/admin/audit?page_size=" + std::to_string(std::max(options.entries, 1)));
  if (!answer.ok()) return report(answer.status());
  if (options.json) return print_json(*answer);
  const Json& entries = (*answer)["entries"];
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry)
    std::printf("%6lld %-21s %-24s %-16s %3lld %s %s\n",
                static_cast<long long>(entry->value("number", int64_t{0})), text_at(*entry, "time").c_str(),
                text_at(*entry, "actor").c_str(), text_at(*entry, "address").c_str(),
                static_cast<long long>(entry->value("status", int64_t{0})), text_at(*entry, "action").c_str(),
                text_at(*entry, "target").c_str());
  return kDone;
}

}  // namespace

Command users_command() {
  auto options = std::make_shared<UsersOptions>();
  return {"users", "people who administer a gateway: names, roles, passwords",
          "A password is read from stdin.\n"
          "  tessera users add ann --role operator\n"
          "  tessera users disable ann",
          fields_of(*options), [options] { return users(*options); }};
}

Command audit_command() {
  auto options = std::make_shared<AuditOptions>();
  return {"audit", "who changed what at a gateway, and whether the record is whole", "  tessera audit verify",
          fields_of(*options), [options] { return audit(*options); }};
}

}  // namespace tessera::app
