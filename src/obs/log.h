// The process's log: structured lines on stderr, as text for people or as JSON for machines.
//
//   obs::log_info("gateway", "listening", {{"port", port}});
//   TESSERA_LOG(kWarn, "worker", "link to {} lost", peer);       // formats only if the level is on
//
// Everything here is thread-safe; a line is written whole. Works before configure_logging (text, info).
#pragma once

#include <fmt/core.h>

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera::obs {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };
// "debug", "info", "warn", "error", "off".
Result<Level> parse_level(std::string_view name);

enum class LogFormat { kText, kJson };
// "text", "json": the values of --log-format.
Result<LogFormat> parse_log_format(std::string_view name);

struct LogConfig {
  Level level = Level::kInfo;
  LogFormat format = LogFormat::kText;
  std::string file;  // also appended here, in the same format; empty = stderr alone
};
// Replaces the configuration; kIo when the file cannot be opened (then the old configuration stays).
Status configure_logging(const LogConfig& config);

// A key and a value beside the message. Numbers and booleans stay unquoted in JSON.
struct LogField {
  LogField(std::string_view k, std::string_view v) : key(k), value(v), quoted(true) {}
  LogField(std::string_view k, const std::string& v) : LogField(k, std::string_view(v)) {}
  LogField(std::string_view k, const char* v) : LogField(k, std::string_view(v)) {}
  LogField(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
  template <std::integral T>
  LogField(std::string_view k, T v) : key(k), value(std::to_string(v)) {}
  // Not finite: written as a quoted word, JSON has no number for it.
  LogField(std::string_view k, double v);

  std::string_view key;  // must outlive the call that logs it: use literals
  std::string value;
  bool quoted = false;
};

bool log_enabled(Level level);
// `component` is the part of the program that speaks ("gateway", "worker", "net"). Control characters of
// the message are escaped, so that nobody's input can forge a line.
void log(Level level, std::string_view component, std::string_view message,
         std::initializer_list<LogField> fields = {});

inline void log_debug(std::string_view component, std::string_view message,
                      std::initializer_list<LogField> fields = {}) {
  log(Level::kDebug, component, message, fields);
}
inline void log_info(std::string_view component, std::string_view message,
                     std::initializer_list<LogField> fields = {}) {
  log(Level::kInfo, component, message, fields);
}
inline void log_warn(std::string_view component, std::string_view message,
                     std::initializer_list<LogField> fields = {}) {
  log(Level::kWarn, component, message, fields);
}
inline void log_error(std::string_view component, std::string_view message,
                      std::initializer_list<LogField> fields = {}) {
  log(Level::kError, component, message, fields);
}

}  // namespace tessera::obs

// TESSERA_LOG(kInfo, "component", "format {}", arguments…)
#define TESSERA_LOG(level, component, ...)                                                      \
  do {                                                                                          \
    if (::tessera::obs::log_enabled(::tessera::obs::Level::level))                              \
      ::tessera::obs::log(::tessera::obs::Level::level, component, ::fmt::format(__VA_ARGS__)); \
  } while (false)
