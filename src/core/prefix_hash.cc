#include "core/prefix_hash.h"

namespace tessera {
namespace {

void add_field(Sha256& hash, std::span<const uint8_t> bytes) {
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bytes.size() >> (8 * i));
  hash.update(length);
  hash.update(bytes);
}

void add_int(Sha256& hash, uint32_t value) {
  const uint8_t bytes[4] = {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8),
                            static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 24)};
  hash.update(bytes);
}

}  // namespace

Digest prefix_root(const PrefixExtra& extra) {
  Sha256 hash;
  add_field(hash, as_bytes("tessera kv 1"));
  add_field(hash, as_bytes(extra.model_identity));
  add_field(hash, as_bytes(extra.salt));
  add_int(hash, static_cast<uint32_t>(extra.rope_variant));
  return hash.finish();
}

Digest prefix_next(const Digest& parent, std::span<const TokenId> block) {
  Sha256 hash;
  hash.update(parent);
  for (TokenId token : block) add_int(hash, static_cast<uint32_t>(token));
  return hash.finish();
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
