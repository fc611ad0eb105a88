// URLs as this project meets them: http and https, and the targets of requests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tessera::net {

struct Url {
  std::string scheme;        // "http" or "https", lower case
  std::string host;          // lower case; an IPv6 address without its brackets
  uint16_t port = 0;         // always set: 80 and 443 by default
  std::string target = "/";  // path and query as written, without the fragment

  bool tls() const { return scheme == "https"; }
  // The Host header: brackets around IPv6, no default port.
  std::string authority() const;
  std::string to_string() const;
  bool same_origin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
};

// InvalidArgument for what is not an absolute http(s) URL, has user info, or holds spaces or control bytes.
Result<Url> parse_url(std::string_view text);
// A Location header seen at `base`: absolute, "//host/…", "/…" or relative.
Result<Url> resolve_url(const Url& base, std::string_view reference);

// Nothing for a '%' without two hex digits.
std::optional<std::string> percent_decode(std::string_view text);
// Everything but unreserved characters (RFC 3986) becomes %XX; '/' too unless kept.
std::string percent_encode(std::string_view text, bool keep_slash = false);

// "a=1&b=x%20y&flag" → {a,1} {b,"x y"} {flag,""}; '+' is a space. Parts with a broken escape are kept as
// sent.
std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query);
// The first value of `name` in a query.
std::optional<std::string> query_value(std::string_view query, std::string_view name);

}  // namespace tessera::net
