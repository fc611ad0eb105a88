#include "net/response_parser.h"

#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "net/response_encoder.h"

namespace tessera::net {
namespace beast = boost::beast;
using beast::error_code;

namespace {

constexpr uint32_t kMaxHeaderBytes = uint32_t{64} << 10;
constexpr size_t kMaxChunkLineBytes = 16384;
constexpr int kMaxInterimAnswers = 16;

std::string_view view(beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

class ResponseParser::Parser final : public beast::http::basic_parser<false> {
 public:
  explicit Parser(bool head_only) {
    header_limit(kMaxHeaderBytes);
    body_limit(boost::none);  // the caller's callback decides
    eager(true);
    skip(head_only);
  }

  size_t feed(std::string_view bytes, error_code& error) {
    // Beast 1.81 asserts on a last chunk of which fewer than 5 bytes are there; every chunked body ends
    // with 5.
    if (is_header_done() && chunked() && bytes.size() < kLastChunk.size()) {
      error = beast::http::error::need_more;
      return 0;
    }
    return put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
  }

  int status = 0;
  Headers headers;
  bool cancelled = false;
  const std::function<bool(std::string_view)>* on_body = nullptr;  // during feed()

 private:
  void on_response_impl(int code, beast::string_view, int, error_code&) override { status = code; }
  void on_field_impl(beast::http::field, beast::string_view name, beast::string_view value,
                     error_code&) override {
    if (header_complete_) return;
    std::string lower(view(name));
    for (char& c : lower)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    headers.emplace_back(std::move(lower), view(value));
  }
  void on_header_impl(error_code&) override { header_complete_ = true; }
  size_t on_body_impl(beast::string_view body, error_code& error) override { return hand_on(body, error); }
  size_t on_chunk_body_impl(uint64_t, beast::string_view body, error_code& error) override {
    return hand_on(body, error);
  }
  void on_request_impl(beast::http::verb, beast::string_view, beast::string_view, int, error_code&) override {
  }
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code&) override {}
  void on_chunk_header_impl(uint64_t, beast::string_view, error_code&) override {}
  void on_finish_impl(error_code&) override {}

  size_t hand_on(beast::string_view body, error_code& error) {
    if (!body.empty() && !(*on_body)(view(body))) {
      cancelled = true;
      error = beast::http::error::end_of_stream;
    }
    return body.size();
  }

  bool header_complete_ = false;
};

ResponseParser::ResponseParser(bool head_only) : head_only_(head_only) {
  restart();
}
ResponseParser::~ResponseParser() = default;

void ResponseParser::restart() {
  parser_ = std::make_unique<Parser>(head_only_);
}

Result<size_t> ResponseParser::put(std::string_view bytes,
                                   const std::function<bool(std::string_view)>& on_body) {
  size_t used = 0;
  while (used < bytes.size() && !parser_->is_done()) {
    error_code error;
    parser_->on_body = &on_body;
    used += parser_->feed(bytes.substr(used), error);
    if (parser_->cancelled) return cancelled("the transfer was cancelled");
    if (parser_->is_done() && parser_->status / 100 == 1) {
      if (parser_->status == 101 || ++interim_answers_ > kMaxInterimAnswers)
        return corrupt("the server sent an unexpected interim answer");
      restart();
      continue;
    }
    if (error == beast::http::error::need_more) {
      if (bytes.size() - used > kMaxHeaderBytes + kMaxChunkLineBytes)
        return corrupt("malformed HTTP answer: a line is too long");
      break;
    }
    if (error) return corrupt("malformed HTTP answer: " + error.message());
  }
  return used;
}

Status ResponseParser::put_end() {
  if (parser_->is_done()) return {};
  error_code error;
  if (parser_->got_some()) parser_->put_eof(error);
  if (error || !parser_->is_done()) return unavailable("the server closed the connection within its answer");
  return {};
}

bool ResponseParser::header_done() const {
  return parser_->is_header_done();
}
bool ResponseParser::done() const {
  return parser_->is_done();
}
bool ResponseParser::keep_alive() const {
  return parser_->keep_alive();
}
int ResponseParser::status() const {
  return parser_->status;
}
const Headers& ResponseParser::headers() const {
  return parser_->headers;
}

}  // namespace tessera::net
