// The little of HTTP that pulling a model needs, as an interface, so that tests can be a hub.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tessera::fetch {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpHead {
  int status = 0;
  HttpHeaders headers;
  std::string_view header(std::string_view name) const;  // any case; empty when absent
};

struct HttpGet {
  std::string url;
  HttpHeaders headers = {};
  std::optional<uint64_t> range_from = {};  // asks for the bytes from here on
};

// Called with each piece of a body in order; an error ends the transfer and becomes its result.
using BodySink = std::function<Status(const HttpHead& head, std::string_view piece)>;

// Thread-safe.
class HttpGetter {
 public:
  virtual ~HttpGetter() = default;
  // One GET, no redirect followed. Ok also for an error status, whose body the sink may not see; a body that
  // ends early, a connection that fails or stalls is Unavailable or DeadlineExceeded. Never waits for ever.
  virtual Result<HttpHead> get(const HttpGet& request, const BodySink& sink) = 0;
};

// The real one, over net's client.
std::unique_ptr<HttpGetter> make_net_getter();

// The last element answers the request; the ones before it are the redirects that led there.
using HttpTrail = std::vector<HttpHead>;

// Follows up to ten redirects. `token` goes as a bearer to the first URL's origin only; from https to http is
// refused. The sink sees the last reply's body only. `trail` gets what was answered, also where the transfer
// then fails.
Status get_following(HttpGetter& http, const HttpGet& request, const std::string& token, const BodySink& sink,
                     HttpTrail& trail);

// What an HTTP status means for a pull: ok for 200 and 206; Unavailable where a retry may help.
Status status_of_reply(int http_status, const std::string& what);

}  // namespace tessera::fetch
