// The first byte picks a reader; the rest is its input. What is read whole must not depend on how it was cut.
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "net/request_parser.h"
#include "net/response_parser.h"
#include "net/sse.h"
#include "net/url.h"

namespace tessera::net {
namespace {

void fuzz_url(std::string_view text) {
  if (const auto url = parse_url(text); url.ok()) {
    const auto again = parse_url(url->to_string());
    if (!again.ok() || again->to_string() != url->to_string()) std::abort();
    (void)resolve_url(*url, text.substr(text.size() / 2));
  }
  for (const auto& [name, value] : parse_query(text))
    if (name.size() + value.size() > text.size()) std::abort();
  if (percent_decode(percent_encode(text)) != std::string(text)) std::abort();
}

std::vector<std::string> sse_events(std::string_view text, size_t piece) {
  SseParser parser(1 << 16);
  std::vector<std::string> events;
  for (size_t at = 0; at < text.size(); at += piece) {
    const Status status = parser.feed(text.substr(at, piece), [&](const SseEvent& event) {
      events.push_back(event.event + "|" + event.data + "|" + event.id);
    });
    if (!status.ok()) break;
  }
  return events;
}

// The request as one text; empty when it was refused or is unfinished (which of the two may depend on the
// cut).
std::string read_request(std::string_view text, size_t piece) {
  RequestParser parser({4096, 4096});
  std::string input;
  for (size_t at = 0; at < text.size() && !parser.done() && parser.refusal().status == 0; at += piece) {
    input += text.substr(at, piece);
    input.erase(0, parser.put(input));
  }
  if (!parser.done()) return {};
  HttpRequest request = parser.take_request();
  if (request.body.size() > 4096) std::abort();
  std::string out = request.method + " " + request.target + "\n";
  for (const auto& [name, value] : request.headers) out += name + ":" + value + "\n";
  return out + request.body;
}

}  // namespace
}  // namespace tessera::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera::net;
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      fuzz_url(text);
      break;
    case 1:
      if (sse_events(text, 1) != sse_events(text, text.size())) std::abort();
      break;
    case 2:
      if (read_request(text, 1) != read_request(text, text.size())) std::abort();
      break;
    default: {
      ResponseParser parser(false);
      (void)parser.put(text, [](std::string_view bytes) { return bytes.size() < 100; });
      (void)parser.put_end();
    }
  }
  return 0;
}
