// Layout: a model as its tensors show it. What is computed with them is model::ModelSpec, which extends this.
#pragma once

#include <string>
#include <vector>

namespace tessera::weights {

struct Layout {
  std::string family;  // model_type of config.json
  int num_blocks = 0;
  int hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn = 0;
  int vocab = 0;
  int experts = 0;
  int expert_ffn = 0;
  bool qk_norm = false;         // RMS norm of each q and k head before RoPE
  bool post_norms = false;      // norms after attention and MLP, before the residual add (Gemma 2, 3)
  bool attention_bias = false;  // on q, k, v
  bool output_bias = false;     // on the attention's output projection
  bool mlp_bias = false;
  bool tied_embedding = false;
  bool norm_plus_one = false;          // norms are stored as w, used as 1 + w (Gemma)
  bool rope_rows_interleaved = false;  // q and k rows are stored as rotary pairs (2i, 2i + 1) (GGUF's llama)
  std::vector<bool> moe;               // [num_blocks]: this block's MLP is a mixture of experts
};

}  // namespace tessera::weights
