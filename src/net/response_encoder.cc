#include "net/response_encoder.h"

#include <fmt/core.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace tessera::net {
namespace {

std::string_view reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Status";
  }
}

// RFC 9110's date, made once a second per thread.
std::string_view http_date() {
  thread_local std::time_t made = 0;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != made) {
    std::tm utc{};
    gmtime_r(&now, &utc);
    char buffer[64];
    text.assign(buffer, std::strftime(buffer, sizeof(buffer), "%a, %d %b %Y %H:%M:%S GMT", &utc));
    made = now;
  }
  return text;
}

bool has_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

void append_header(std::string& out, std::string_view name, std::string_view value) {
  for (const std::string_view text : {name, std::string_view(": "), value})
    for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  out += "\r\n";
}

std::string head_start(int status, std::string_view content_type, const Headers& headers,
                       const AnswerFrame& frame) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", status, reason(status));
  append_header(out, "Date", http_date());
  if (!content_type.empty() && has_body(status)) append_header(out, "Content-Type", content_type);
  append_header(out, "X-Request-Id", frame.request_id);
  for (const auto& [name, value] : headers) append_header(out, name, value);
  if (!frame.keep_alive) {
    append_header(out, "Connection", "close");
  } else if (frame.http_1_0) {
    append_header(out, "Connection", "keep-alive");
  }
  return out;
}

}  // namespace

std::string encode_response(const HttpResponse& response, const AnswerFrame& frame) {
  std::string out = head_start(response.status, response.content_type, response.headers, frame);
  if (has_body(response.status)) append_header(out, "Content-Length", std::to_string(response.body.size()));
  out += "\r\n";
  if (has_body(response.status) && !frame.head_only) out += response.body;
  return out;
}

std::string encode_stream_head(int status, std::string_view content_type, const Headers& headers,
                               const AnswerFrame& frame) {
  std::string out = head_start(status, content_type, headers, frame);
  if (!frame.http_1_0) append_header(out, "Transfer-Encoding", "chunked");
  out += "\r\n";
  return out;
}

void append_chunk(std::string& out, std::string_view chunk) {
  if (chunk.empty()) return;  // an empty chunk would end the stream
  out += fmt::format("{:x}\r\n", chunk.size());
  out += chunk;
  out += "\r\n";
}

HttpResponse error_answer(int status, std::string_view message) {
  HttpResponse response;
  response.status = status;
  response.body = dump_json(OrderedJson{{"error",
                                         {{"message", message},
                                          {"type", status >= 500 ? "server_error" : "invalid_request_error"},
                                          {"param", nullptr},
                                          {"code", nullptr}}}});
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace tessera::net
