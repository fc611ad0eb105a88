// The invitation to a cluster: the TOKEN of tessera://HOST:PORT/TOKEN. One line of base64url.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/sha256.h"
#include "base/status.h"

namespace tessera::wire {

struct JoinToken {
  int64_t expires_unix_s = 0;
  std::string secret;  // kSecretBytes random bytes; the issuer keeps only their hash
  Digest ca_sha256{};  // of the authority's certificate: whom a new worker may trust

  static constexpr size_t kSecretBytes = 24;

  // A token with a fresh secret.
  static Result<JoinToken> make(int64_t expires_unix_s, const Digest& ca_sha256);
  std::string text() const;
  // InvalidArgument: not a token, cut short, mistyped (it carries a checksum) or of another version;
  // PermissionDenied: expired at now_unix_s.
  static Result<JoinToken> parse(std::string_view text, int64_t now_unix_s);
};

struct JoinUrl {
  std::string addresses;  // "HOST:PORT[,HOST:PORT…]"
  JoinToken token;
};
// "tessera://HOST:PORT/TOKEN".
Result<JoinUrl> parse_join_url(std::string_view url, int64_t now_unix_s);

}  // namespace tessera::wire
