#include "gateway/signature.h"

#include <gtest/gtest.h>

namespace tessera::gateway {
namespace {

constexpr int64_t kNow_ms = 1'700'000'000'000;

net::HttpRequest make_request(const Digest& secret, int64_t seconds = kNow_ms / 1000) {
  net::HttpRequest request;
  request.method = "POST";
  request.target = "/v1/completions?x=1";
  request.body = R"({"prompt":"x"})";
  const std::string message = "POST:/v1/completions?x=1:" + to_hex(sha256(as_bytes(request.body))) + ":" +
                              std::to_string(seconds) + ":0123456789abcdef";
  request.headers = {{"x-api-key-id", "key_a"},
                     {"x-timestamp", std::to_string(seconds)},
                     {"x-nonce", "0123456789abcdef"},
                     {"x-signature", to_hex(hmac_sha256(secret, as_bytes(message)))}};
  return request;
}

bool right(const net::HttpRequest& request, const Digest& secret) {
  const auto read = read_signature(request, kNow_ms);
  return std::holds_alternative<SignedRequest>(read) &&
         signature_is_right(std::get<SignedRequest>(read), secret);
}

TEST(Signature, CoversMethodTargetBodyTimeAndNonce) {
  const Digest secret = sha256(as_bytes("ent_secret"));
  const net::HttpRequest good = make_request(secret);
  EXPECT_TRUE(right(good, secret));
  EXPECT_FALSE(right(good, sha256(as_bytes("ent_other"))));
  const auto changed = [&](auto change) {
    net::HttpRequest request = good;
    change(request);
    return right(request, secret);
  };
  EXPECT_FALSE(changed([](auto& r) { r.method = "PUT"; }));
  EXPECT_FALSE(changed([](auto& r) { r.target = "/v1/completions?x=2"; }));
  EXPECT_FALSE(changed([](auto& r) { r.body += " "; }));
  EXPECT_FALSE(changed([](auto& r) { r.headers[1].second = std::to_string(kNow_ms / 1000 + 1); }));
  EXPECT_FALSE(changed([](auto& r) { r.headers[2].second = "0123456789abcdee"; }));
  EXPECT_FALSE(changed([](auto& r) { r.headers[3].second.back() ^= 1; }));
  EXPECT_FALSE(changed([](auto& r) { r.headers[3].second.clear(); }));
  for (size_t i = 0; i < good.headers.size(); ++i)
    EXPECT_FALSE(
        changed([&](auto& r) { r.headers.erase(r.headers.begin() + static_cast<std::ptrdiff_t>(i)); }));
}

TEST(Signature, IsGoodForFiveMinutesOfBothSides) {
  const Digest secret = sha256(as_bytes("s"));
  for (const int64_t off : {-300, 0, 300})
    EXPECT_TRUE(right(make_request(secret, kNow_ms / 1000 + off), secret)) << off;
  for (const int64_t off : {-301, 301})
    EXPECT_FALSE(right(make_request(secret, kNow_ms / 1000 + off), secret)) << off;
  for (const char* wrong : {"soon", "-5", "1700000000x", "99999999999999999999", ""}) {
    net::HttpRequest request = make_request(secret);
    request.headers[1].second = wrong;
    EXPECT_FALSE(right(request, secret)) << wrong;
  }
  net::HttpRequest request = make_request(secret);
  request.headers[2].second = "short";
  EXPECT_FALSE(right(request, secret));
}

}  // namespace
}  // namespace tessera::gateway
