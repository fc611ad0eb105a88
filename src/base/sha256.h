// SHA-256 and HMAC-SHA256 over OpenSSL's libcrypto.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

using Digest = std::array<uint8_t, 32>;

inline std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Incremental hash; one thread at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::span<const uint8_t> bytes);
  // Ends the hash; the object may then only be destroyed.
  Digest finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

Digest sha256(std::span<const uint8_t> bytes);
Digest hmac_sha256(std::span<const uint8_t> key, std::span<const uint8_t> message);
// git's object id of a blob: SHA-1 over "blob <size>\0" + contents, 40 hex digits (what hubs publish for
// small files).
std::string git_blob_id(std::span<const uint8_t> contents);
// Lower-case hex.
std::string to_hex(std::span<const uint8_t> bytes);

}  // namespace tessera
