// An HttpResponse to bytes. Header values are cleaned, so that no value can start another header.
#pragma once

#include <string>
#include <string_view>

#include "net/http.h"

namespace tessera::net {

// How this answer goes out, from what the request said and the server decided.
struct AnswerFrame {
  bool head_only = false;  // HEAD
  bool http_1_0 = false;   // no chunks: a stream ends with the connection
  bool keep_alive = true;
  std::string request_id;
};

// Head and body.
std::string encode_response(const HttpResponse& response, const AnswerFrame& frame);
// The head of a stream.
std::string encode_stream_head(int status, std::string_view content_type, const Headers& headers,
                               const AnswerFrame& frame);
void append_chunk(std::string& out, std::string_view chunk);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// OpenAI's error object, type invalid_request_error or, from 500 on, server_error.
HttpResponse error_answer(int status, std::string_view message);

}  // namespace tessera::net
