// The system's words as plain data (docs/architecture.md, "Words").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/status.h"

namespace tessera {

using TokenId = int32_t;
using SessionId = uint64_t;  // unique within a gateway's life
using Epoch = uint32_t;      // number of a session's current route; older messages are dropped

constexpr int kKvBlockTokens = 16;  // tokens of a KV block: unit of identity, checksum, transfer

// Transformer blocks [first, last).
struct BlockRange {
  int first = 0;
  int last = 0;
  int size() const { return last - first; }
  bool operator==(const BlockRange&) const = default;
};

// "0:8,8:30" → ranges; InvalidArgument unless they cover [0, num_blocks) once and in order.
Result<std::vector<BlockRange>> parse_block_ranges(std::string_view text, int num_blocks);

// What decides the bits of a result: workers of equal class are exchangeable without changing a token (I1).
struct NumericsClass {
  std::string backend;           // "cpu", "cuda:sm_90"
  std::string kernels;           // kernel family and version, e.g. "f32.1", "int8.1", "bf16dot.1"
  DType compute = DType::kF32;   // activations between ops
  DType residual = DType::kF32;  // the residual stream at block boundaries, and on the wire
  DType kv = DType::kF32;
  bool operator==(const NumericsClass&) const = default;
  std::string to_string() const;
};

// What a worker says of the model it hosts: enough for placement and routing without knowing the model's
// code.
struct ModelCard {
  std::string name;        // served name
  std::string model_hash;  // of config and tensor manifest: two workers of one hash hold the same weights
  int num_blocks = 0;
  int hidden_size = 0;
  int vocab_size = 0;
  int context_length = 0;
  bool token_exact = true;   // false for engines that cannot keep I1
  bool whole_model = false;  // true for engines that take no block ranges
  NumericsClass numerics;
};

}  // namespace tessera
