#include "wire/join_token.h"

#include <cstring>
#include <ctime>

#include "base/bytes.h"
#include "base/secrets.h"
#include "wire/address.h"

namespace tessera::wire {
namespace {

constexpr std::string_view kScheme = "tessera://";
constexpr uint8_t kVersion = 1;
constexpr size_t kChecksumBytes = 4;
constexpr size_t kTokenBytes = 1 + sizeof(int64_t) + JoinToken::kSecretBytes + 32 + kChecksumBytes;

std::string checksum(std::string_view body) {
  const Digest digest = sha256(as_bytes(body));
  return {reinterpret_cast<const char*>(digest.data()), kChecksumBytes};
}

std::string utc_text(int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm parts{};
  char text[64];
  if (gmtime_r(&time, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts) == 0)
    return "long ago";
  return text;
}

}  // namespace

Result<JoinToken> JoinToken::make(int64_t expires_unix_s, const Digest& ca_sha256) {
  JoinToken token;
  token.expires_unix_s = expires_unix_s;
  token.ca_sha256 = ca_sha256;
  TESSERA_ASSIGN_OR_RETURN(token.secret, random_bytes(kSecretBytes));
  return token;
}

std::string JoinToken::text() const {
  TESSERA_CHECK(secret.size() == kSecretBytes, "a join token's secret of another size");
  std::string body(1, static_cast<char>(kVersion));
  body.append(reinterpret_cast<const char*>(&expires_unix_s), sizeof expires_unix_s);
  body += secret;
  body.append(reinterpret_cast<const char*>(ca_sha256.data()), ca_sha256.size());
  body += checksum(body);
  return base64url(as_bytes(body));
}

Result<JoinToken> JoinToken::parse(std::string_view text, int64_t now_unix_s) {
  const Status malformed = invalid_argument(
      "this is no join token, or a part of it is missing: copy the whole line that the gateway printed");
  if (text.size() > 2 * kTokenBytes) return malformed;
  const auto bytes = base64url_decode(text);
  if (!bytes.ok() || bytes->empty()) return malformed;
  const auto version = static_cast<uint8_t>(bytes->front());
  if (version != kVersion && bytes->size() != kTokenBytes)
    return version > kVersion && bytes->size() > kTokenBytes
               ? invalid_argument("the join token is of a newer version of the program: update this one")
               : malformed;
  if (version != kVersion || bytes->size() != kTokenBytes) return malformed;
  const std::string_view body = std::string_view(*bytes).substr(0, kTokenBytes - kChecksumBytes);
  if (checksum(body) != bytes->substr(body.size())) return malformed;
  ByteReader reader(as_bytes(body.substr(1)));
  JoinToken token;
  TESSERA_ASSIGN_OR_RETURN(token.expires_unix_s, reader.read<int64_t>());
  TESSERA_ASSIGN_OR_RETURN(auto secret, reader.take_string(kSecretBytes));
  token.secret = secret;
  TESSERA_ASSIGN_OR_RETURN(token.ca_sha256, reader.read<Digest>());
  if (now_unix_s >= token.expires_unix_s)
    return Status(Code::kPermissionDenied, "the join token expired at " + utc_text(token.expires_unix_s) +
                                               ": ask the gateway for a new one");
  return token;
}

Result<JoinUrl> parse_join_url(std::string_view url, int64_t now_unix_s) {
  if (url.substr(0, kScheme.size()) != kScheme)
    return invalid_argument("the address to join is tessera://HOST:PORT/TOKEN");
  const std::string_view rest = url.substr(kScheme.size());
  const size_t slash = rest.find('/');
  if (slash == std::string_view::npos)
    return invalid_argument("the token is missing: the address to join is tessera://HOST:PORT/TOKEN");
  JoinUrl join;
  join.addresses = rest.substr(0, slash);
  TESSERA_RETURN_IF_ERROR(parse_addresses(join.addresses).status());
  TESSERA_ASSIGN_OR_RETURN(join.token, JoinToken::parse(rest.substr(slash + 1), now_unix_s));
  return join;
}

}  // namespace tessera::wire
