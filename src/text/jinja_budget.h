// What one rendering may spend: steps, wall time, live memory. One per rendering; used by one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja_error.h"
#include "text/template_limits.h"

namespace tessera::text::jinja {

class Budget {
 public:
  explicit Budget(const TemplateLimits& limits)
      : limits_(limits), deadline_(std::chrono::steady_clock::now() + limits.max_time) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  const TemplateLimits& limits() const { return limits_; }

  // Counts work; every loop over data and every evaluated node calls it. Throws when steps or time are spent.
  void tick(uint64_t steps = 1) {
    steps_ += steps;
    if (steps_ >= next_check_) check();
  }
  // `bytes` more are live. Throws, and counts nothing, when they do not fit.
  void allocate(uint64_t bytes) {
    require_room(bytes);
    live_bytes_ += bytes;
  }
  void release(uint64_t bytes) { live_bytes_ -= bytes; }
  // Throws when `bytes` more would not fit: to be called before building something of that size.
  void require_room(uint64_t bytes) const {
    if (bytes > limits_.max_memory_bytes || live_bytes_ > limits_.max_memory_bytes - bytes)
      fail(ErrorKind::kLimit,
           "the template needs more than " + std::to_string(limits_.max_memory_bytes) + " bytes of memory");
  }

 private:
  static constexpr uint64_t kStepsBetweenClockReads = 4096;

  void check() {
    if (steps_ > static_cast<uint64_t>(limits_.max_steps))
      fail(ErrorKind::kLimit, "the template takes more than " + std::to_string(limits_.max_steps) + " steps");
    if (std::chrono::steady_clock::now() > deadline_)
      fail(ErrorKind::kLimit,
           "the template takes longer than " + std::to_string(limits_.max_time.count()) + " ms");
    next_check_ = steps_ + kStepsBetweenClockReads;
    if (next_check_ > static_cast<uint64_t>(limits_.max_steps)) next_check_ = limits_.max_steps + 1;
  }

  TemplateLimits limits_;
  std::chrono::steady_clock::time_point deadline_;
  uint64_t steps_ = 0;
  uint64_t next_check_ = 0;  // the first tick reads the clock
  uint64_t live_bytes_ = 0;
};

// Text under construction: its bytes count as live memory until it is taken or dropped.
class TextBuffer {
 public:
  explicit TextBuffer(Budget& budget) : budget_(budget) {}
  ~TextBuffer() { budget_.release(charged_); }
  TextBuffer(const TextBuffer&) = delete;
  TextBuffer& operator=(const TextBuffer&) = delete;

  void append(std::string_view text) {
    grow(text.size());
    text_.append(text);
  }
  void append(size_t count, char c) {
    grow(count);
    text_.append(count, c);
  }
  void push_back(char c) { append(1, c); }
  size_t size() const { return text_.size(); }
  const std::string& text() const { return text_; }
  std::string take() { return std::move(text_); }

 private:
  void grow(uint64_t bytes) {
    budget_.tick(1 + bytes / 256);
    budget_.allocate(bytes);
    charged_ += bytes;
  }

  Budget& budget_;
  std::string text_;
  uint64_t charged_ = 0;
};

}  // namespace tessera::text::jinja
