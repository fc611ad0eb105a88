#include "obs/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/mutex.h"

namespace tessera::obs {
namespace {

struct LogState {
  std::atomic<Level> level{Level::kInfo};
  std::atomic<LogFormat> format{LogFormat::kText};
  Mutex mutex;
  std::shared_ptr<spdlog::logger> logger TESSERA_GUARDED_BY(mutex);
};

std::shared_ptr<spdlog::logger> make_logger(const std::string& file) {
  std::vector<spdlog::sink_ptr> sinks{std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  if (!file.empty()) sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
  auto logger = std::make_shared<spdlog::logger>("tessera", sinks.begin(), sinks.end());
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::trace);
  return logger;
}

// The log outlives every object that may still speak in its destructor, so it is never destroyed.
LogState& state() {
  static LogState* const instance = [] {
    auto* created = new LogState;
    created->logger = make_logger({});
    return created;
  }();
  return *instance;
}

std::string_view level_name(Level level) {
  switch (level) {
    case Level::kDebug:
      return "debug";
    case Level::kInfo:
      return "info";
    case Level::kWarn:
      return "warn";
    case Level::kError:
      return "error";
    case Level::kOff:
      break;
  }
  return "off";
}

// 2026-01-31T12:00:00.123Z
std::string timestamp() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  std::tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char text[32];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:03}Z", std::string_view(text, length), now.tv_nsec / 1000000);
}

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
}

std::string text_line(Level level, std::string_view component, std::string_view message,
                      std::initializer_list<LogField> fields) {
  std::string line = fmt::format("{} {:5} {}: ", timestamp(), level_name(level), component);
  append_escaped(line, message);
  for (const LogField& field : fields) {
    line += fmt::format(" {}=", field.key);
    const bool spaced = field.value.empty() || field.value.find_first_of(" \"=") != std::string::npos;
    if (field.quoted && spaced) {
      append_escaped(line, dump_json(Json(field.value)));
    } else {
      append_escaped(line, field.value);
    }
  }
  return line;
}

std::string json_line(Level level, std::string_view component, std::string_view message,
                      std::initializer_list<LogField> fields) {
  OrderedJson line;
  line["ts"] = timestamp();
  line["level"] = level_name(level);
  line["component"] = component;
  line["message"] = message;
  std::string text = dump_json(line);
  if (fields.size() == 0) return text;
  text.pop_back();
  text += ",\"fields\":{";
  bool first = true;
  for (const LogField& field : fields) {
    if (!first) text += ',';
    first = false;
    text += dump_json(Json(std::string(field.key)));
    text += ':';
    text += field.quoted ? dump_json(Json(field.value)) : field.value;
  }
  text += "}}";
  return text;
}

}  // namespace

LogField::LogField(std::string_view k, double v)
    : key(k), value(fmt::format("{}", v)), quoted(!std::isfinite(v)) {}

Result<Level> parse_level(std::string_view name) {
  for (const Level level : {Level::kDebug, Level::kInfo, Level::kWarn, Level::kError, Level::kOff})
    if (name == level_name(level)) return level;
  return invalid_argument(fmt::format("log level '{}' is none of debug, info, warn, error, off", name));
}

Result<LogFormat> parse_log_format(std::string_view name) {
  if (name == "text") return LogFormat::kText;
  if (name == "json") return LogFormat::kJson;
  return invalid_argument(fmt::format("log format '{}' is neither text nor json", name));
}

Status configure_logging(const LogConfig& config) {
  std::shared_ptr<spdlog::logger> logger;
  try {
    logger = make_logger(config.file);
  } catch (const std::exception& error) {
    return Status(Code::kIo, fmt::format("cannot open log file '{}': {}", config.file, error.what()));
  }
  LogState& log_state = state();
  MutexLock lock(log_state.mutex);
  log_state.logger = std::move(logger);
  log_state.level = config.level;
  log_state.format = config.format;
  return {};
}

bool log_enabled(Level level) {
  return level != Level::kOff && level >= state().level.load(std::memory_order_relaxed);
}

void log(Level level, std::string_view component, std::string_view message,
         std::initializer_list<LogField> fields) {
  if (!log_enabled(level)) return;
  LogState& log_state = state();
  const std::string line = log_state.format.load(std::memory_order_relaxed) == LogFormat::kJson
                               ? json_line(level, component, message, fields)
                               : text_line(level, component, message, fields);
  std::shared_ptr<spdlog::logger> logger;
  {
    MutexLock lock(log_state.mutex);
    logger = log_state.logger;
  }
  logger->log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace tessera::obs
