#include "core/prefix_hash.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace tessera {
namespace {

void add_field(Sha256& hash, std::span<const uint8_t> bytes) {
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bytes.size() >> (8 * i));
  hash.update(length);
  hash.update(bytes);
}

void put_int(uint8_t* out, uint32_t value) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace

Digest prefix_root(const PrefixExtra& extra) {
  Sha256 hash;
  add_field(hash, as_bytes("tessera kv 1"));
  add_field(hash, as_bytes(extra.model_identity));
  add_field(hash, as_bytes(extra.salt));
  uint8_t variant[4];
  put_int(variant, static_cast<uint32_t>(extra.rope_variant));
  hash.update(variant);
  return hash.finish();
}

Digest prefix_next(const Digest& parent, std::span<const TokenId> block) {
  TESSERA_CHECK(block.size() == kKvBlockTokens, "a KV block has 16 tokens");
  std::array<uint8_t, sizeof(Digest) + 4 * kKvBlockTokens>
      bytes;  // hashed at once: this runs for every block that fills
  std::copy(parent.begin(), parent.end(), bytes.begin());
  uint8_t* tokens = bytes.data() + sizeof(Digest);  // little endian
  if constexpr (std::endian::native == std::endian::little)
    std::memcpy(tokens, block.data(), 4 * kKvBlockTokens);
  else
    for (size_t i = 0; i < block.size(); ++i) put_int(tokens + 4 * i, static_cast<uint32_t>(block[i]));
  return sha256(bytes);
}

std::vector<Digest> prefix_hashes(std::span<const TokenId> tokens, const PrefixExtra& extra) {
  std::vector<Digest> hashes;
  hashes.reserve(tokens.size() / kKvBlockTokens);
  Digest parent = prefix_root(extra);
  for (size_t begin = 0; begin + kKvBlockTokens <= tokens.size(); begin += kKvBlockTokens) {
    parent = prefix_next(parent, tokens.subspan(begin, kKvBlockTokens));
    hashes.push_back(parent);
  }
  return hashes;
}

}  // namespace tessera
