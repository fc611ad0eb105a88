#include "net/request_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>

#include "net/response_encoder.h"
#include "net/url.h"
#include "obs/trace.h"

namespace tessera::net {
namespace beast = boost::beast;
using beast::error_code;
using beast::http::field;

namespace {

// Beast wants the terminating blank line within the limit, and a chunk's size line is not bounded by it.
constexpr size_t kMaxChunkLineBytes = 16384;

std::string_view view(beast::string_view text) {
  return {text.data(), text.size()};
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

class RequestParser::Parser final : public beast::http::basic_parser<true> {
 public:
  explicit Parser(const RequestLimits& limits) : limits_(limits) {
    header_limit(limits.max_header_bytes);
    body_limit(limits.max_body_bytes);
    eager(true);
  }

  size_t feed(std::string_view bytes) {
    if (bytes.empty() || refusal.status != 0 || is_done()) return 0;
    started = true;
    // Beast 1.81 asserts on a last chunk of which fewer than 5 bytes are there; every chunked body ends
    // with 5.
    if (is_header_done() && chunked() && bytes.size() < kLastChunk.size()) return 0;
    error_code error;
    const size_t used = put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
    if (error && error != beast::http::error::need_more && refusal.status == 0) refuse_for(error);
    if (refusal.status == 0 && is_header_done() && !is_done() && bytes.size() - used > kMaxChunkLineBytes)
      refuse(400, "the size line of a chunk is too long");
    return used;
  }

  bool expects_continue() const { return expects_continue_; }
  bool http_1_0() const { return version_ == 10; }

  HttpRequest request;
  Refusal refusal;
  bool started = false;

 private:
  void refuse(int status, std::string message) { refusal = {status, std::move(message)}; }

  void refuse_for(error_code error) {
    if (error == beast::http::error::body_limit) {
      refuse(413, "the request body is larger than " + std::to_string(limits_.max_body_bytes) + " bytes");
    } else if (error == beast::http::error::header_limit) {
      refuse(431, "the request header is larger than " + std::to_string(limits_.max_header_bytes) + " bytes");
    } else {
      refuse(400, "malformed HTTP request: " + error.message());
    }
  }

  // Ends parsing; the refusal says why.
  void refuse_in_callback(error_code& error, int status, std::string message) {
    refuse(status, std::move(message));
    error = beast::http::error::bad_value;
  }

  void on_request_impl(beast::http::verb, beast::string_view method, beast::string_view target, int version,
                       error_code& error) override {
    if (version != 10 && version != 11)
      return refuse_in_callback(error, 400, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    version_ = version;
    request.method = view(method);
    request.target = view(target);
    std::string_view path = request.target;
    if (path.starts_with("http://") || path.starts_with("https://")) {
      const size_t slash = path.find_first_of("/?", path.find("://") + 3);
      path = slash == std::string_view::npos ? "/" : path.substr(slash);
    }
    const size_t question = path.find('?');
    if (question != std::string_view::npos) request.query = path.substr(question + 1);
    const auto decoded = percent_decode(path.substr(0, question));
    if (!decoded || has_control(*decoded))
      return refuse_in_callback(error, 400, "the request target is not a valid path");
    request.path = decoded->empty() ? "/" : *decoded;
  }

  void on_field_impl(field name, beast::string_view name_text, beast::string_view value,
                     error_code& error) override {
    if (header_complete_) return;  // trailers may not change what was decided from the header
    if (name == field::host) ++hosts_;
    if (name == field::content_length) has_content_length_ = true;
    if (name == field::transfer_encoding) {
      has_transfer_encoding_ = true;
      if (!beast::iequals(value, "chunked") || version_ == 10)
        return refuse_in_callback(error, 400, "only Transfer-Encoding: chunked, of HTTP/1.1, is supported");
    }
    if (has_content_length_ && has_transfer_encoding_)
      return refuse_in_callback(error, 400, "a request has Content-Length or Transfer-Encoding, not both");
    if (name == field::expect) {
      if (!beast::iequals(value, "100-continue"))
        return refuse_in_callback(error, 417, "only Expect: 100-continue is supported");
      expects_continue_ = version_ == 11;
    }
    request.headers.emplace_back(lower(view(name_text)), view(value));
  }

  void on_header_impl(error_code& error) override {
    header_complete_ = true;
    if (hosts_ > 1 || (hosts_ == 0 && version_ == 11))
      return refuse_in_callback(error, 400, "a request needs exactly one Host header");
    request.id = request_id(request.header("x-request-id"));
  }

  size_t on_body_impl(beast::string_view body, error_code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }
  size_t on_chunk_body_impl(uint64_t, beast::string_view body, error_code&) override {
    request.body.append(body.data(), body.size());
    return body.size();
  }
  void on_response_impl(int, beast::string_view, int, error_code&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code&) override {}
  void on_chunk_header_impl(uint64_t, beast::string_view, error_code&) override {}
  void on_finish_impl(error_code&) override {}

  const RequestLimits limits_;
  int version_ = 11;
  int hosts_ = 0;
  bool header_complete_ = false;
  bool has_content_length_ = false;
  bool has_transfer_encoding_ = false;
  bool expects_continue_ = false;
};

RequestParser::RequestParser(const RequestLimits& limits) : parser_(std::make_unique<Parser>(limits)) {}
RequestParser::~RequestParser() = default;

size_t RequestParser::put(std::string_view bytes) {
  return parser_->feed(bytes);
}
const RequestParser::Refusal& RequestParser::refusal() const {
  return parser_->refusal;
}
bool RequestParser::started() const {
  return parser_->started;
}
bool RequestParser::header_done() const {
  return parser_->is_header_done();
}
bool RequestParser::done() const {
  return parser_->refusal.status == 0 && parser_->is_done();
}
bool RequestParser::expects_continue() const {
  return parser_->expects_continue();
}
bool RequestParser::http_1_0() const {
  return parser_->http_1_0();
}
bool RequestParser::keep_alive() const {
  return parser_->keep_alive();
}
HttpRequest RequestParser::take_request() {
  return std::move(parser_->request);
}

std::string request_id(const std::string* client_id) {
  const bool sane = client_id && !client_id->empty() && client_id->size() <= 128 &&
                    std::all_of(client_id->begin(), client_id->end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                             c == '.' || c == '_' || c == ':' || c == '-';
                    });
  return sane ? *client_id : "req_" + obs::new_trace().trace_id;
}

}  // namespace tessera::net
