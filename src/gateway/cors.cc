#include "gateway/cors.h"

#include <algorithm>

#include "gateway/header_writer.h"

namespace tessera::gateway {
Cors::Cors(std::vector<std::string> origins) : origins_(std::move(origins)) {}

net::Headers Cors::headers_for(const net::HttpRequest& request) const {
  const std::string* origin = request.header("origin");
  if (!origin) return {};
  const auto allowed = [&](const std::string& o) { return o == "*" || o == *origin; };
  const auto match = std::find_if(origins_.begin(), origins_.end(), allowed);
  if (match == origins_.end()) return {};
  return {{"Access-Control-Allow-Origin", *match},
          {"Vary", "Origin"},
          {"Access-Control-Expose-Headers",
           "X-Request-Id, Retry-After, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
           "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
           "x-ratelimit-reset-tokens"}};
}

std::optional<net::HttpResponse> Cors::preflight(const net::HttpRequest& request) const {
  if (request.method != "OPTIONS" || !request.header("access-control-request-method")) return std::nullopt;
  net::HttpResponse response;
  response.status = 204;
  response.content_type.clear();
  response.headers = headers_for(request);
  if (response.headers.empty()) return std::nullopt;
  const std::string* wanted = request.header("access-control-request-headers");
  response.headers.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  response.headers.emplace_back("Access-Control-Allow-Headers",
                                wanted ? *wanted : "Authorization, Content-Type");
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

std::shared_ptr<net::ResponseWriter> Cors::wrap(const net::HttpRequest& request,
                                                std::shared_ptr<net::ResponseWriter> writer) const {
  net::Headers headers = headers_for(request);
  if (headers.empty()) return writer;
  return with_headers(std::move(writer), std::move(headers));
}

}  // namespace tessera::gateway
