#include "obs/trace.h"

#include <fmt/core.h>

#include <deque>
#include <random>

#include "base/mutex.h"

namespace tessera::obs {
namespace {

uint64_t random_nonzero() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  uint64_t value = 0;
  while (value == 0) value = generator();
  return value;
}

bool is_lower_hex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
bool is_id(std::string_view text) {
  return is_lower_hex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

TraceContext new_trace() {
  return {fmt::format("{:016x}{:016x}", random_nonzero(), random_nonzero()),
          fmt::format("{:016x}", random_nonzero()), true};
}

TraceContext child_of(const TraceContext& parent) {
  return {parent.trace_id, fmt::format("{:016x}", random_nonzero()), parent.sampled};
}

std::optional<TraceContext> parse_traceparent(std::string_view header) {
  constexpr size_t kLength = 2 + 1 + 32 + 1 + 16 + 1 + 2;
  if (header.size() < kLength) return std::nullopt;
  const std::string_view version = header.substr(0, 2);
  if (!is_lower_hex(version) || version == "ff") return std::nullopt;
  if (header.size() > kLength && (version == "00" || header[kLength] != '-')) return std::nullopt;
  if (header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  const std::string_view trace_id = header.substr(3, 32);
  const std::string_view span_id = header.substr(36, 16);
  const std::string_view flags = header.substr(53, 2);
  if (!is_id(trace_id) || !is_id(span_id) || !is_lower_hex(flags)) return std::nullopt;
  const int low = flags[1] <= '9' ? flags[1] - '0' : flags[1] - 'a' + 10;
  return TraceContext{std::string(trace_id), std::string(span_id), (low & 1) != 0};
}

std::string format_traceparent(const TraceContext& context) {
  return fmt::format("00-{}-{}-{}", context.trace_id, context.span_id, context.sampled ? "01" : "00");
}

struct MemorySpanSink::State {
  size_t capacity;
  mutable Mutex mutex;
  std::deque<Span> spans TESSERA_GUARDED_BY(mutex);
};

MemorySpanSink::MemorySpanSink(size_t capacity) : state_(std::make_unique<State>()) {
  state_->capacity = capacity;
}
MemorySpanSink::~MemorySpanSink() = default;

void MemorySpanSink::record(Span span) {
  MutexLock lock(state_->mutex);
  state_->spans.push_back(std::move(span));
  while (state_->spans.size() > state_->capacity) state_->spans.pop_front();
}

std::vector<Span> MemorySpanSink::spans() const {
  MutexLock lock(state_->mutex);
  return {state_->spans.begin(), state_->spans.end()};
}

}  // namespace tessera::obs
