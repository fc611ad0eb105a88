// Server-sent events, both ways.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tessera::net {

// "data: …\n\n"; a line break inside `data` starts another data line, as the format wants it.
std::string sse_event(std::string_view data);

struct SseEvent {
  std::string event;  // "message" unless named
  std::string data;   // lines joined by '\n'
  std::string id;     // the last id seen in the stream
};

// Bytes in, whole events out, however the bytes were cut. One thread.
class SseParser {
 public:
  explicit SseParser(size_t max_event_bytes = size_t{16} << 20) : max_event_bytes_(max_event_bytes) {}

  // Calls `on_event` for every event that is complete. Corrupt when one event grows over the bound; the
  // parser then stays in error.
  Status feed(std::string_view bytes, const std::function<void(const SseEvent&)>& on_event);

 private:
  void take_line(std::string_view line, const std::function<void(const SseEvent&)>& on_event);

  const size_t max_event_bytes_;
  std::string line_;  // what has come of the current line
  std::string event_;
  std::string data_;
  std::string id_;
  bool has_data_ = false;
  bool after_cr_ = false;  // a '\n' now belongs to the '\r' before it
  bool at_start_ = true;   // a byte order mark may still come
  bool failed_ = false;
};

}  // namespace tessera::net
