#include "net/sse.h"

#include <algorithm>

namespace tessera::net {

std::string sse_event(std::string_view data) {
  std::string out;
  out.reserve(data.size() + 16);
  for (;;) {
    const size_t end = data.find_first_of("\r\n");
    out += "data: ";
    out += data.substr(0, end);
    out += '\n';
    if (end == std::string_view::npos) break;
    data.remove_prefix(end + (data.substr(end, 2) == "\r\n" ? 2 : 1));
  }
  out += '\n';
  return out;
}

Status SseParser::feed(std::string_view bytes, const std::function<void(const SseEvent&)>& on_event) {
  while (!bytes.empty() && !failed_) {
    if (after_cr_ && bytes[0] == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    if (line_.size() + data_.size() + event_.size() + end > max_event_bytes_) {
      failed_ = true;
      break;
    }
    line_ += bytes.substr(0, end);
    bytes.remove_prefix(end);
    if (bytes.empty()) break;
    after_cr_ = bytes[0] == '\r';
    bytes.remove_prefix(1);
    take_line(line_, on_event);
    line_.clear();
  }
  if (failed_)
    return corrupt("a server-sent event is larger than " + std::to_string(max_event_bytes_) + " bytes");
  return {};
}

void SseParser::take_line(std::string_view line, const std::function<void(const SseEvent&)>& on_event) {
  if (at_start_ && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  at_start_ = false;
  if (line.empty()) {
    if (has_data_) {
      data_.pop_back();
      on_event({event_.empty() ? "message" : event_, data_, id_});
    }
    data_.clear();
    event_.clear();
    has_data_ = false;
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  std::string_view value = colon == std::string_view::npos ? std::string_view() : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "data") {
    data_ += value;
    data_ += '\n';
    has_data_ = true;
  } else if (name == "event") {
    event_ = value;
  } else if (name == "id" && value.find('\0') == std::string_view::npos) {
    id_ = value;
  }
}

}  // namespace tessera::net
