// Cross-origin requests from browsers: which pages may talk to this API.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/http.h"

namespace tessera::gateway {

// Immutable; thread-safe.
class Cors {
 public:
  // Origins as browsers send them ("https://app.example"), or "*" for all. None: no page of another origin.
  explicit Cors(std::vector<std::string> origins);

  // The answer to a preflight of an allowed origin; nothing for any other request.
  std::optional<net::HttpResponse> preflight(const net::HttpRequest& request) const;
  // `writer`, or one around it that adds the headers an allowed origin needs to whatever is answered.
  std::shared_ptr<net::ResponseWriter> wrap(const net::HttpRequest& request,
                                            std::shared_ptr<net::ResponseWriter> writer) const;

 private:
  net::Headers headers_for(const net::HttpRequest& request) const;  // empty: not allowed, or no origin

  const std::vector<std::string> origins_;
};

}  // namespace tessera::gateway
