// Bytes of a server to an answer, for the client. The bytes are hostile: sizes are bounded.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "net/http.h"

namespace tessera::net {

// One final answer; interim ones (1xx) before it are skipped. One thread.
class ResponseParser {
 public:
  // `head_only`: the answer to a HEAD request has no body whatever its header says.
  explicit ResponseParser(bool head_only);
  ~ResponseParser();

  // Takes what belongs to this answer from the front of `bytes` and returns how much that was; the rest must
  // be given again with more behind it. Body bytes go to `on_body` as they come; false from it ends with
  // kCancelled.
  Result<size_t> put(std::string_view bytes, const std::function<bool(std::string_view)>& on_body);
  // The server closed: Unavailable unless that completes the answer.
  Status put_end();

  bool header_done() const;
  bool done() const;
  bool keep_alive() const;
  int status() const;              // after header_done()
  const Headers& headers() const;  // after header_done(); names in lower case

 private:
  class Parser;
  void restart();

  const bool head_only_;
  int interim_answers_ = 0;
  std::unique_ptr<Parser> parser_;
};

}  // namespace tessera::net
