#include <toml++/toml.h>
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <set>

#include "app/command.h"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

// What one verb's command line said; applied last.
struct Given {
  CLI::App* app = nullptr;
  Command* command = nullptr;
  std::vector<std::unique_ptr<std::vector<std::string>>> values;  // per field
  std::string config_file;
};

// --config FILE, else the user's, else the system's; "" = none.
std::string config_path(const std::string& given) {
  if (!given.empty()) return given;
  if (auto from_environment = environment("TESSERA_CONFIG")) return *from_environment;
  const std::string home = environment("HOME").value_or("");
  for (const std::string& path :
       {home + "/.config/tessera/config.toml", std::string("/etc/tessera/config.toml")}) {
    std::error_code error;
    if (fs::exists(path, error)) return path;
  }
  return "";
}

Status set_from_node(const Field& field, const toml::node& node) {
  if (const auto* array = node.as_array()) {
    if (!field.repeatable) return invalid_argument("takes one value, not a list");
    std::vector<std::string> all;
    for (const toml::node& element : *array) {
      auto text = element.value<std::string>();
      if (!text) return invalid_argument("takes a list of strings");
      all.push_back(*text);
    }
    return field.set_all(all);
  }
  if (auto text = node.value_exact<std::string>())
    return field.repeatable ? field.set_all({*text}) : field.set(*text);
  if (auto truth = node.value_exact<bool>()) return field.set(*truth ? "true" : "false");
  if (auto number = node.value_exact<int64_t>()) return field.set(std::to_string(*number));
  if (auto number = node.value_exact<double>()) return field.set(std::to_string(*number));
  return invalid_argument("has a value of a type that no option takes");
}

// Keys at the top hold for every verb, keys under [VERB] for that one. A key that no verb knows is an error:
// a misspelt option must not be ignored.
Status apply_file(const std::string& path, const Command& command, const std::vector<Command>& all) {
  if (path.empty()) return {};
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return invalid_argument(path + ":" + std::to_string(error.source().begin.line) + ": " +
                            std::string(error.description()));
  }
  std::set<std::string, std::less<>> known;
  for (const Command& c : all) {
    known.insert(c.name);
    for (const Field& field : c.fields) known.insert(field.name);
  }
  const toml::table* section = table[command.name].as_table();
  for (const auto& [key, node] : table)
    if (!known.contains(key.str()))
      return invalid_argument(path + ": no verb has an option '" + std::string(key.str()) + "'");
  for (const toml::table* level : {const_cast<const toml::table*>(&table), section}) {
    if (level == nullptr) continue;
    for (const Field& field : command.fields) {
      const toml::node* node = level->get(field.name);
      if (node == nullptr || node->is_table() || field.positional) continue;
      TESSERA_RETURN_IF_ERROR(set_from_node(field, *node).with_context(path + ": " + field.name));
    }
  }
  if (section != nullptr) {
    for (const auto& [key, node] : *section) {
      const bool mine = std::any_of(command.fields.begin(), command.fields.end(),
                                    [&](const Field& f) { return f.name == key.str(); });
      if (!mine)
        return invalid_argument(path + ": " + command.name + " has no option '" + std::string(key.str()) +
                                "'");
    }
  }
  return {};
}

Status apply_environment_fields(const Command& command) {
  for (const Field& field : command.fields) {
    if (field.positional) continue;
    auto text = environment(environment_name(field.name));
    if (text) TESSERA_RETURN_IF_ERROR(field.set(*text).with_context(environment_name(field.name)));
  }
  return {};
}

Status apply_flags(const Given& given) {
  const auto is_given = [&](const std::string& name) {
    for (size_t i = 0; i < given.command->fields.size(); ++i)
      if (given.command->fields[i].name == name) return !given.values[i]->empty();
    return false;
  };
  for (const auto& [one, other] : given.command->exclusive)
    if (is_given(one) && is_given(other))
      return invalid_argument("--" + one + " and --" + other + " do not go together");
  for (size_t i = 0; i < given.command->fields.size(); ++i) {
    const Field& field = given.command->fields[i];
    const std::vector<std::string>& values = *given.values[i];
    if (values.empty()) continue;
    const std::string shown = (field.positional ? "" : "--") + field.name;
    Status status = field.repeatable ? field.set_all(values) : field.set(values.back());
    if (!status.ok()) return status.with_context(shown);
  }
  return {};
}

void add_fields(Given& given) {
  for (const Field& field : given.command->fields) {
    auto& values = *given.values.emplace_back(std::make_unique<std::vector<std::string>>());
    std::string help = field.help;
    if (!field.default_text.empty()) help += " [" + field.default_text + "]";
    if (field.is_flag) {
      given.app->add_flag_callback(
          "--" + field.name, [&values] { values = {"true"}; }, help);
      continue;
    }
    CLI::Option* option =
        given.app->add_option(field.positional ? field.name : "--" + field.name, values, help);
    option->type_name(field.positional ? "" : "VALUE");
    if (!field.positional)
      option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
    if (field.positional && !field.repeatable) option->expected(0, 1);
  }
  given.app->add_option("--config", given.config_file,
                        "TOML file with options (else ~/.config/tessera/config.toml)");
}

void end_interrupted(int) {
  ::_exit(kInterrupted);
}

// SIGINT ends every verb at once, with the status that says so, unless the verb has its own use for it; a
// script's background job, which the shell starts with SIGINT ignored, likewise.
void exit_on_interrupt() {
  struct sigaction action {};
  action.sa_handler = end_interrupted;
  sigaction(SIGINT, &action, nullptr);
}

// Letters to change, add or take away until `a` is `b`.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t change = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({change, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

Status unknown_verb(std::string_view given, const std::vector<Command>& commands) {
  std::string message = "unknown verb \"" + std::string(given) + "\"";
  const auto distance = [&](const Command& command) { return edit_distance(given, command.name); };
  const auto nearest =
      std::min_element(commands.begin(), commands.end(),
                       [&](const Command& a, const Command& b) { return distance(a) < distance(b); });
  if (distance(*nearest) <= 2 && distance(*nearest) < given.size())
    message += "; did you mean \"" + nearest->name + "\"?";
  else
    message += "; `tessera --help` lists them";
  return invalid_argument(message);
}

}  // namespace

int report(const Status& status) {
  std::fprintf(stderr, "tessera: %s\n", status.message().c_str());
  return status.code() == Code::kInvalidArgument ? kWrongUsage : kFailed;
}

int run_program(int argc, char** argv) {
  exit_on_interrupt();
  std::vector<Command> commands = all_commands();
  if (argc > 1 && argv[1][0] != '-') {
    const auto known = [&](const Command& command) { return command.name == argv[1]; };
    if (std::none_of(commands.begin(), commands.end(), known)) return report(unknown_verb(argv[1], commands));
  }
  CLI::App program{
      "Tessera: one endpoint of GPUs and CPUs that were never meant to work together.\n"
      "Start with:  tessera serve --model smollm2:135m"};
  program.set_version_flag("--version", TESSERA_VERSION);
  program.require_subcommand(1);
  program.footer(
      "tessera VERB --help explains a verb. Options also come from TESSERA_* variables and config.toml.");
  std::vector<std::unique_ptr<Given>> given;
  for (Command& command : commands) {
    auto entry = std::make_unique<Given>();
    entry->command = &command;
    entry->app = program.add_subcommand(command.name, command.summary);
    entry->app->footer(command.details);
    add_fields(*entry);
    given.push_back(std::move(entry));
  }
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return program.exit(success);
  } catch (const CLI::ParseError& error) {
    program.exit(error);
    return kWrongUsage;
  }
  for (const auto& entry : given) {
    if (!entry->app->parsed()) continue;
    Status status = apply_file(config_path(entry->config_file), *entry->command, commands);
    if (status.ok()) status = apply_environment_fields(*entry->command);
    if (status.ok()) status = apply_flags(*entry);
    if (!status.ok())
      return report(status.code() == Code::kInvalidArgument ? status : invalid_argument(status.message()));
    return entry->command->run();
  }
  return kWrongUsage;
}

}  // namespace tessera::app
