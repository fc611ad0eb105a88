// Identity of KV: a SHA-256 chain over the tokens of a prompt, one link per full KV block of 16 tokens.
#pragma once

#include <span>
#include <vector>

#include "base/sha256.h"
#include "core/types.h"

namespace tessera {

// What makes equal tokens different KV: model, adapter, media, tenant salt, RoPE variant, numerics of the
// blocks before.
struct PrefixExtra {
  std::string model_identity;
  std::string salt;
  int32_t rope_variant = 0;
};

// hashes[i] names the tokens [0, 16 (i + 1)); a partial last block has no hash. Length-prefixed fields, so no
// two different inputs share an encoding.
std::vector<Digest> prefix_hashes(std::span<const TokenId> tokens, const PrefixExtra& extra);
// The chain's start and step, for callers that append while decoding.
Digest prefix_root(const PrefixExtra& extra);
Digest prefix_next(const Digest& parent, std::span<const TokenId> block);

}  // namespace tessera
