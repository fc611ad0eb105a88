// Trace spans in OpenTelemetry's model, and the W3C traceparent header that carries them between processes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::obs {

// Where a span stands: what is handed to the spans below it, in this process or the next.
struct TraceContext {
  std::string trace_id;  // 32 lower-case hex digits, not all zero
  std::string span_id;   // 16 lower-case hex digits, not all zero
  bool sampled = true;
};

// A new root: fresh random trace and span id.
TraceContext new_trace();
// The context of a new span below `parent`: same trace, fresh span id.
TraceContext child_of(const TraceContext& parent);

// "00-<trace_id>-<span_id>-<flags>"; nothing when the text is not a valid traceparent of version 00, or of a
// later version that starts the same way.
std::optional<TraceContext> parse_traceparent(std::string_view header);
std::string format_traceparent(const TraceContext& context);

struct Span {
  std::string trace_id;
  std::string span_id;
  std::string parent_id;  // empty for a root
  std::string name;
  int64_t start_unix_ns = 0;
  int64_t end_unix_ns = 0;
  std::vector<std::pair<std::string, std::string>> attributes;
};

// Takes finished spans. Thread-safe; must not block: an exporter queues and drops when full.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void record(Span span) = 0;
};

// Tracing is off.
class NullSpanSink final : public SpanSink {
 public:
  void record(Span) override {}
};

// Keeps the newest `capacity` spans.
class MemorySpanSink final : public SpanSink {
 public:
  explicit MemorySpanSink(size_t capacity = 4096);
  ~MemorySpanSink() override;
  void record(Span span) override;
  std::vector<Span> spans() const;  // oldest first

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tessera::obs
