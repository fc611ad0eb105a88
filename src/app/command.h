// A verb of the program: its options as data, and what it does. The command line, the environment and the
// config file are read for every verb by the same code (cli.cc).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/config.h"

namespace tessera::app {

// Exit status of the program (docs/interfaces.md).
constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;
constexpr int kInterrupted = 130;

// One option, its storage erased. Lives as long as the options object that it points into.
struct Field {
  std::string name;  // "kv-memory"
  std::string help;
  std::string default_text;
  bool is_flag = false;     // takes no value on the command line
  bool repeatable = false;  // each occurrence adds a value
  bool positional = false;
  std::function<Status(std::string_view)> set;
  std::function<Status(const std::vector<std::string>&)> set_all;  // repeatable fields
};

struct Command {
  std::string name;
  std::string summary;  // one line for `tessera --help`
  std::string details;  // examples and advice for `tessera NAME --help`
  std::vector<Field> fields;
  std::function<int()> run;  // exit status; called after all fields are set
  std::vector<std::pair<std::string, std::string>> exclusive = {};  // flags that do not go together
};

inline std::string field_default(bool) {
  return "";
}
inline std::string field_default(int value) {
  return std::to_string(value);
}
inline std::string field_default(double value) {
  std::string text = std::to_string(value);
  while (text.find('.') != std::string::npos && (text.back() == '0' || text.back() == '.')) {
    const bool dot = text.back() == '.';
    text.pop_back();
    if (dot) break;
  }
  return text;
}
inline std::string field_default(const std::string& value) {
  return value;
}
inline std::string field_default(ByteSize value) {
  return value.bytes == 0 ? "" : format_bytes(value.bytes);
}
inline std::string field_default(const std::vector<std::string>&) {
  return "";
}
template <typename T>
std::string field_default(const std::optional<T>& value) {
  return value ? field_default(*value) : "";
}

// The fields of an options struct as data. A name that begins with '=' is positional.
template <typename Options>
std::vector<Field> fields_of(Options& options) {
  std::vector<Field> list;
  auto visit = [&](std::string_view name, auto& value, std::string_view help) {
    using T = std::remove_reference_t<decltype(value)>;
    Field field;
    field.positional = name.starts_with('=');
    field.name = field.positional ? name.substr(1) : name;
    field.help = help;
    field.default_text = field_default(value);
    field.is_flag = std::is_same_v<T, bool>;
    field.repeatable = std::is_same_v<T, std::vector<std::string>>;
    field.set = [&value](std::string_view text) { return parse_field(text, value); };
    if constexpr (std::is_same_v<T, std::vector<std::string>>) {
      field.set_all = [&value](const std::vector<std::string>& all) {
        value = all;
        return Status();
      };
    }
    list.push_back(std::move(field));
  };
  options.fields(visit);
  return list;
}

// Prints "tessera: MESSAGE" to stderr and returns the exit status that fits the code.
int report(const Status& status);

// Every verb of this build.
std::vector<Command> all_commands();
// Parses argv, applies file and environment, runs the verb.
int run_program(int argc, char** argv);

}  // namespace tessera::app
