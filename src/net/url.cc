#include "net/url.h"

#include <algorithm>
#include <charconv>

namespace tessera::net {
namespace {

constexpr size_t kMaxUrlBytes = 16384;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_host(std::string_view host) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

bool is_ipv6(std::string_view host) {
  return !host.empty() && std::all_of(host.begin(), host.end(),
                                      [](char c) { return hex_value(c) >= 0 || c == ':' || c == '.'; });
}

Status parse_authority(std::string_view authority, Url& url) {
  if (authority.find('@') != std::string_view::npos)
    return invalid_argument("a URL with user name or password is not supported");
  std::string_view port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return invalid_argument("URL has '[' without ']'");
    url.host = lower(authority.substr(1, close - 1));
    if (!is_ipv6(url.host)) return invalid_argument("URL has a malformed IPv6 address");
    const std::string_view rest = authority.substr(close + 1);
    if (!rest.empty() && rest[0] != ':') return invalid_argument("URL has text after ']'");
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
  } else {
    const size_t colon = authority.find(':');
    has_port = colon != std::string_view::npos;
    if (has_port) port = authority.substr(colon + 1);
    url.host = lower(authority.substr(0, colon));
    if (!is_host(url.host)) return invalid_argument("URL has no host or a malformed one");
  }
  url.port = url.tls() ? 443 : 80;
  if (!has_port || port.empty()) return {};
  const char* const end = port.data() + port.size();
  const auto [stop, error] = std::from_chars(port.data(), end, url.port);
  if (error != std::errc() || stop != end || url.port == 0)
    return invalid_argument("URL has a malformed port");
  return {};
}

}  // namespace

std::string Url::authority() const {
  std::string out = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port != (tls() ? 443 : 80)) out += ":" + std::to_string(port);
  return out;
}

std::string Url::to_string() const {
  return scheme + "://" + authority() + target;
}

Result<Url> parse_url(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return invalid_argument("URL is longer than 16384 bytes");
  for (const char c : text)
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f)
      return invalid_argument("URL holds a space or a control character");
  Url url;
  const size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos)
    return invalid_argument("URL does not start with http:// or https://");
  url.scheme = lower(text.substr(0, scheme_end));
  if (url.scheme != "http" && url.scheme != "https")
    return invalid_argument("URL does not start with http:// or https://");
  text.remove_prefix(scheme_end + 3);
  text = text.substr(0, text.find('#'));
  const size_t authority_end = std::min(text.find_first_of("/?"), text.size());
  TESSERA_RETURN_IF_ERROR(parse_authority(text.substr(0, authority_end), url));
  const std::string_view target = text.substr(authority_end);
  url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  return url;
}

Result<Url> resolve_url(const Url& base, std::string_view reference) {
  if (reference.find("://") < reference.find_first_of("/?#")) return parse_url(reference);
  if (reference.starts_with("//")) return parse_url(base.scheme + ":" + std::string(reference));
  const std::string origin = base.scheme + "://" + base.authority();
  if (reference.starts_with('/')) return parse_url(origin + std::string(reference));
  const std::string path = base.target.substr(0, base.target.find('?'));
  if (reference.empty() || reference.starts_with('#')) return parse_url(origin + base.target);
  if (reference.starts_with('?')) return parse_url(origin + path + std::string(reference));
  return parse_url(origin + path.substr(0, path.rfind('/') + 1) + std::string(reference));
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (text.size() - i < 3) return std::nullopt;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

std::string percent_encode(std::string_view text, bool keep_slash) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (keep_slash && c == '/');
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query) {
  auto decode = [](std::string_view part) {
    std::string spaced(part);
    std::replace(spaced.begin(), spaced.end(), '+', ' ');
    return percent_decode(spaced).value_or(std::string(part));
  };
  std::vector<std::pair<std::string, std::string>> parts;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view part = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    const std::string_view value = equals == std::string_view::npos ? "" : part.substr(equals + 1);
    parts.emplace_back(decode(part.substr(0, equals)), decode(value));
  }
  return parts;
}

std::optional<std::string> query_value(std::string_view query, std::string_view name) {
  for (auto& [key, value] : parse_query(query))
    if (key == name) return std::move(value);
  return std::nullopt;
}

}  // namespace tessera::net
