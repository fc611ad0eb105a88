// Bytes of a client to an HttpRequest. The bytes are hostile: framing that two servers could read differently
// (both lengths, unknown transfer codings, no Host) is refused, sizes are bounded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "net/http.h"

namespace tessera::net {

struct RequestLimits {
  uint32_t max_header_bytes = uint32_t{64} << 10;
  uint64_t max_body_bytes = uint64_t{16} << 20;
};

// One request; make a new one for the next. One thread.
class RequestParser {
 public:
  // Why a request was refused: answer with this and close the connection.
  struct Refusal {
    int status = 0;  // 400, 413, 417 or 431; 0: not refused
    std::string message;
  };

  explicit RequestParser(const RequestLimits& limits);
  ~RequestParser();

  // Takes what belongs to this request from the front of `bytes` and returns how much that was. Bytes that it
  // leaves must be given again, with more behind them.
  size_t put(std::string_view bytes);

  const Refusal& refusal() const;  // once refused, put() takes nothing
  bool started() const;            // at least one byte came
  bool header_done() const;
  bool done() const;

  // After header_done().
  bool expects_continue() const;  // Expect: 100-continue, of an HTTP/1.1 client
  bool http_1_0() const;
  bool keep_alive() const;

  // After done(), once: all but remote_address.
  HttpRequest take_request();

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

// The client's own id when it is 1 to 128 characters of [A-Za-z0-9._:-], else a fresh "req_…".
std::string request_id(const std::string* client_id);

}  // namespace tessera::net
