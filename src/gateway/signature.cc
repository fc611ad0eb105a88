#include "gateway/signature.h"

#include <charconv>
#include <cstdlib>

#include "base/secrets.h"
#include "gateway/authenticator.h"

namespace tessera::gateway {
namespace {

constexpr size_t kShortestNonce = 16, kLongestNonce = 128;
constexpr const char* kSignatureHeader = "x-signature";

}  // namespace

bool is_signed(const net::HttpRequest& request) {
  return request.header(kSignatureHeader) != nullptr;
}

api::ApiResult<SignedRequest> read_signature(const net::HttpRequest& request, int64_t now_unix_ms) {
  SignedRequest read;
  std::string timestamp;
  for (auto [name, value] : {std::pair{"x-api-key-id", &read.key},
                             {"x-timestamp", &timestamp},
                             {"x-nonce", &read.nonce},
                             {kSignatureHeader, &read.signature}}) {
    const std::string* header = request.header(name);
    if (!header || header->empty())
      return unauthorized("A signed request has X-API-Key-Id, X-Timestamp, X-Nonce and X-Signature; '" +
                          std::string(name) + "' is missing.");
    *value = *header;
  }
  if (read.nonce.size() < kShortestNonce || read.nonce.size() > kLongestNonce)
    return unauthorized("X-Nonce has 16 to 128 characters.");
  int64_t seconds = 0;
  const char* end = timestamp.data() + timestamp.size();
  const auto number = std::from_chars(timestamp.data(), end, seconds);
  if (number.ec != std::errc() || number.ptr != end || seconds < 0 || seconds > INT64_MAX / 1000)
    return unauthorized("X-Timestamp is in unix seconds.");
  if (std::llabs(seconds * 1000 - now_unix_ms) > kSignatureWindow_ms)
    return unauthorized("X-Timestamp is more than five minutes from this server's clock.");
  read.message = request.method + ":" + request.target + ":" + to_hex(sha256(as_bytes(request.body))) + ":" +
                 timestamp + ":" + read.nonce;
  return read;
}

bool signature_is_right(const SignedRequest& request, const Digest& secret_sha256) {
  const std::string right = to_hex(hmac_sha256(secret_sha256, as_bytes(request.message)));
  return same_secret(as_bytes(right), as_bytes(request.signature));
}

}  // namespace tessera::gateway
