#include "fetch/http.h"

#include <algorithm>

#include "net/url.h"

namespace tessera::fetch {
namespace {

constexpr int kMaxRedirects = 10;
constexpr size_t kMaxRedirectBody = 1 << 20;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace

std::string_view HttpHead::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (equal_ignoring_case(key, name)) return value;
  }
  return {};
}

Status get_following(HttpGetter& http, const HttpGet& request, const std::string& token, const BodySink& sink,
                     HttpTrail& trail) {
  TESSERA_ASSIGN_OR_RETURN(const net::Url first, net::parse_url(request.url));
  trail.clear();
  net::Url current = first;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    HttpGet sent = request;
    sent.url = current.to_string();
    if (!token.empty() && current.same_origin(first))
      sent.headers.emplace_back("Authorization", "Bearer " + token);
    size_t discarded = 0;
    bool recorded = false;
    auto pass = [&](const HttpHead& head, std::string_view piece) -> Status {
      if (!recorded) trail.push_back(head);
      recorded = true;
      if (!is_redirect(head.status)) return sink(head, piece);
      discarded += piece.size();
      if (discarded > kMaxRedirectBody) return corrupt("a redirect with a body without end");
      return {};
    };
    TESSERA_ASSIGN_OR_RETURN(HttpHead head, http.get(sent, pass));
    if (!recorded) trail.push_back(head);
    if (!is_redirect(head.status)) return {};
    auto next = net::resolve_url(current, head.header("Location"));
    if (!next.ok() || (current.tls() && !next->tls()))
      return corrupt(current.to_string() + " redirects to '" + std::string(head.header("Location")) +
                     "', which is not followed");
    current = std::move(*next);
  }
  return corrupt(request.url + " redirects more than " + std::to_string(kMaxRedirects) + " times");
}

Status status_of_reply(int http_status, const std::string& what) {
  if (http_status == 200 || http_status == 206) return {};
  const std::string said = what + ": the server answered " + std::to_string(http_status);
  if (http_status == 401 || http_status == 403)
    return {Code::kPermissionDenied,
            said + ": the model does not exist, or HF_TOKEN must be set to a token that may read it"};
  if (http_status == 404) return not_found(said + ": no such model, revision or file");
  if (http_status == 408 || http_status == 429 || http_status >= 500) return unavailable(said);
  return corrupt(said);
}

}  // namespace tessera::fetch
