// What the tensors of each family are called, in each file format.
#pragma once

#include <string>
#include <string_view>

#include "checkpoint/source.h"

namespace tessera::weights {

// Names inside a block, without prefix and ".weight" or ".bias"; empty: the family has no such tensor.
// "{}" stands for the expert's number.
struct BlockNames {
  std::string_view attention_norm, post_attention_norm, mlp_norm, post_mlp_norm;
  std::string_view q, k, v, qkv, output, q_norm, k_norm;
  std::string_view gate, up, gate_up, down;
  std::string_view router, expert_gate, expert_up, expert_down;
  std::string_view stacked_gate, stacked_up, stacked_down;  // all experts in one tensor [experts, rows, k]
};

struct Names {
  std::string block_prefix;  // "model.layers.": followed by the block's number and a dot
  std::string embedding, final_norm, lm_head;
  BlockNames block;

  std::string block_tensor(int block, std::string_view part, std::string_view suffix = ".weight") const;
};

// `family` is ModelSpec::family. Corrupt when the files hold no block under any known prefix.
Result<Names> find_names(std::string_view family, const checkpoint::Source& source);

// A tensor of a hosted block, or outside the blocks, that may be ignored: it holds nothing the result
// depends on, or belongs to an encoder that text does not pass through.
bool is_ignorable(std::string_view tensor_name);

}  // namespace tessera::weights
