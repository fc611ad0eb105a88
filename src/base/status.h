// Status and Result<T>: how a function says what a caller may meet (I/O, input, peer, capacity).
// Our own bugs end in CHECK, never in a Status. Values; safe to copy between threads.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace tessera {

// A code exists only because somebody reacts to it differently (HTTP status, retry, failover).
enum class Code {
  kOk,
  kInvalidArgument,    // the caller's mistake: HTTP 400
  kNotFound,           // HTTP 404
  kCorrupt,            // a file's or a peer's bytes are not what they must be
  kUnsupported,        // understood, but refused by name (unknown family, field, version)
  kResourceExhausted,  // no room now: HTTP 429, try later
  kUnavailable,        // a peer or a service is away: HTTP 503, retry
  kDeadlineExceeded,
  kCancelled,
  kPermissionDenied,
  kIo,        // the operating system refused: errno text in the message
  kInternal,  // should not happen, but must not end the process
};

std::string_view code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  // One clear sentence for a person: what is wrong and, where it helps, what to do.
  const std::string& message() const { return message_; }
  // "corrupt: header is 3 bytes" ; "ok".
  std::string to_string() const;
  // The same status with "context: " put before the message.
  Status with_context(std::string_view context) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status invalid_argument(std::string m) {
  return {Code::kInvalidArgument, std::move(m)};
}
inline Status not_found(std::string m) {
  return {Code::kNotFound, std::move(m)};
}
inline Status corrupt(std::string m) {
  return {Code::kCorrupt, std::move(m)};
}
inline Status unsupported(std::string m) {
  return {Code::kUnsupported, std::move(m)};
}
inline Status resource_exhausted(std::string m) {
  return {Code::kResourceExhausted, std::move(m)};
}
inline Status unavailable(std::string m) {
  return {Code::kUnavailable, std::move(m)};
}
inline Status deadline_exceeded(std::string m) {
  return {Code::kDeadlineExceeded, std::move(m)};
}
inline Status cancelled(std::string m) {
  return {Code::kCancelled, std::move(m)};
}
inline Status internal_error(std::string m) {
  return {Code::kInternal, std::move(m)};
}
// kIo with strerror(errno) after the context.
Status io_error(std::string_view context, int errno_value);

[[noreturn]] void check_failed(const char* file, int line, const char* expression, std::string_view message);

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}        // NOLINT: implicit by design
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT
    if (std::get<1>(state_).ok())
      check_failed(__FILE__, __LINE__, "!status.ok()", "Result made from an ok Status");
  }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(state_); }
  T& value() & { return get(); }
  const T& value() const& { return const_cast<Result*>(this)->get(); }
  T&& value() && { return std::move(get()); }
  T& operator*() & { return get(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(get()); }
  T* operator->() { return &get(); }
  const T* operator->() const { return &value(); }

 private:
  T& get() {
    if (!ok()) check_failed(__FILE__, __LINE__, "result.ok()", std::get<1>(state_).message());
    return std::get<0>(state_);
  }
  std::variant<T, Status> state_;
};

}  // namespace tessera

// Ends the process: for our own bugs only, never for input, peers or the operating system.
#define TESSERA_CHECK(condition, ...)                                                           \
  do {                                                                                          \
    if (!(condition)) [[unlikely]]                                                              \
      ::tessera::check_failed(__FILE__, __LINE__, #condition, ::std::string_view{__VA_ARGS__}); \
  } while (false)

#define TESSERA_RETURN_IF_ERROR(expression)            \
  do {                                                 \
    ::tessera::Status tessera_status_ = (expression);  \
    if (!tessera_status_.ok()) return tessera_status_; \
  } while (false)

#define TESSERA_CONCAT_INNER(a, b) a##b
#define TESSERA_CONCAT(a, b) TESSERA_CONCAT_INNER(a, b)
// TESSERA_ASSIGN_OR_RETURN(auto file, MappedFile::open(path));
#define TESSERA_ASSIGN_OR_RETURN(declaration, expression)        \
  auto TESSERA_CONCAT(tessera_result_, __LINE__) = (expression); \
  if (!TESSERA_CONCAT(tessera_result_, __LINE__).ok())           \
    return TESSERA_CONCAT(tessera_result_, __LINE__).status();   \
  declaration = std::move(TESSERA_CONCAT(tessera_result_, __LINE__)).value()
