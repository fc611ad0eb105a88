// Requests that machine clients sign instead of sending their key's secret along.
//
//   X-API-Key-Id: key_…
//   X-Timestamp:  unix seconds, within five minutes of ours
//   X-Nonce:      16 to 128 characters, never used twice
//   X-Signature:  hex of HMAC-SHA256(SHA-256(secret), METHOD:TARGET:BODY_SHA256:TIMESTAMP:NONCE)
//
// TARGET is path and query as sent, BODY_SHA256 lower-case hex. The key of the HMAC is the secret's SHA-256,
// which is all that the database holds.
#pragma once

#include <cstdint>
#include <string>

#include "api/errors.h"
#include "base/sha256.h"
#include "net/http.h"

namespace tessera::gateway {

constexpr int64_t kSignatureWindow_ms = 300'000;

struct SignedRequest {
  std::string key;
  std::string nonce;
  std::string message;  // what was signed
  std::string signature;
};

bool is_signed(const net::HttpRequest& request);
// 401 says what is missing, malformed or out of the window; whether the signature is right is not looked at.
api::ApiResult<SignedRequest> read_signature(const net::HttpRequest& request, int64_t now_unix_ms);
// In constant time.
bool signature_is_right(const SignedRequest& request, const Digest& secret_sha256);

}  // namespace tessera::gateway
