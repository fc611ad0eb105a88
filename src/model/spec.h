// ModelSpec: everything that distinguishes one decoder family from another, as data. A family is one short
// file that fills it from a config.json (or GGUF metadata in the same shape); the blocks that execute it are
// shared.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "core/types.h"
#include "tensor/backend.h"
#include "weights/layout.h"

namespace tessera::model {

struct RopeSpec {
  int rotary_dim = 0;
  // One table per variant: [variants][rotary_dim / 2]. Phi-3's longrope has two (0 short, 1 long), all others
  // one.
  std::vector<float> inv_freq;
  std::vector<float> attention_factor;  // [variants]
  int variants() const { return static_cast<int>(attention_factor.size()); }
};

// One transformer block. Blocks of a model may differ (windows, RoPE base; dense or MoE: Layout::moe).
struct BlockSpec {
  int window = 0;  // 0 = global attention
  int rope = 0;    // index into ModelSpec::ropes
};

struct ModelSpec : weights::Layout {
  int context_length = 0;
  float norm_eps = 1e-6f;
  float embedding_scale = 1.0f;
  float attention_scale = 0.0f;  // multiplies q·k
  float attention_softcap = 0.0f;
  float final_softcap = 0.0f;
  tensor::Activation activation = tensor::Activation::kSilu;
  int experts_per_token = 0;
  bool normalise_top_k = true;
  std::vector<RopeSpec> ropes;
  std::vector<BlockSpec> blocks;    // [num_blocks]
  std::vector<TokenId> end_tokens;  // eos_token_id of config and generation_config
  TokenId bos_token = -1;
  int original_context = 0;  // longrope: sequences up to it use variant 0

  // The RoPE table of a session that may grow to `max_length` tokens; fixed when it opens, so that cached KV
  // stays true.
  int rope_variant(int max_length) const {
    return original_context > 0 && max_length > original_context ? 1 : 0;
  }
};

// Fills a spec from a config in Hugging Face's keys. An unknown family is `unsupported` and names what is
// known; a field that would change the result and is not implemented is refused by name, never ignored.
Result<ModelSpec> read_spec(const Json& config, const Json& generation_config);
// "llama", "mistral", …: the registry's names.
std::vector<std::string> known_families();

}  // namespace tessera::model
