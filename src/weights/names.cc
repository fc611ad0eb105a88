#include "weights/names.h"

#include <algorithm>
#include <array>

namespace tessera::weights {
namespace {

BlockNames hugging_face_names(std::string_view family) {
  BlockNames names;
  names.attention_norm = "input_layernorm";
  names.mlp_norm = "post_attention_layernorm";
  names.q = "self_attn.q_proj";
  names.k = "self_attn.k_proj";
  names.v = "self_attn.v_proj";
  names.output = "self_attn.o_proj";
  names.q_norm = "self_attn.q_norm";
  names.k_norm = "self_attn.k_norm";
  names.gate = "mlp.gate_proj";
  names.up = "mlp.up_proj";
  names.down = "mlp.down_proj";
  if (family.starts_with("gemma")) {  // "post_attention" is before the MLP elsewhere, after attention here
    names.post_attention_norm = "post_attention_layernorm";
    names.mlp_norm = "pre_feedforward_layernorm";
    names.post_mlp_norm = "post_feedforward_layernorm";
  } else if (family == "phi3") {
    names.qkv = "self_attn.qkv_proj";
    names.gate_up = "mlp.gate_up_proj";
  } else if (family == "mixtral") {
    names.router = "block_sparse_moe.gate";
    names.expert_gate = "block_sparse_moe.experts.{}.w1";
    names.expert_up = "block_sparse_moe.experts.{}.w3";
    names.expert_down = "block_sparse_moe.experts.{}.w2";
  } else if (family == "qwen3_moe") {
    names.router = "mlp.gate";
    names.expert_gate = "mlp.experts.{}.gate_proj";
    names.expert_up = "mlp.experts.{}.up_proj";
    names.expert_down = "mlp.experts.{}.down_proj";
  }
  return names;
}

BlockNames gguf_names(std::string_view family) {
  BlockNames names;
  names.attention_norm = "attn_norm";
  names.post_attention_norm = "post_attention_norm";
  names.mlp_norm = "ffn_norm";
  names.post_mlp_norm = "post_ffw_norm";
  names.q = "attn_q";
  names.k = "attn_k";
  names.v = "attn_v";
  names.qkv = "attn_qkv";
  names.output = "attn_output";
  names.q_norm = "attn_q_norm";
  names.k_norm = "attn_k_norm";
  names.gate = "ffn_gate";
  names.up = "ffn_up";
  if (family == "phi3") names.gate_up = "ffn_up";  // gate rows first
  names.down = "ffn_down";
  names.router = "ffn_gate_inp";
  names.expert_gate = "ffn_gate.{}";  // files from before the experts were stacked
  names.expert_up = "ffn_up.{}";
  names.expert_down = "ffn_down.{}";
  names.stacked_gate = "ffn_gate_exps";
  names.stacked_up = "ffn_up_exps";
  names.stacked_down = "ffn_down_exps";
  return names;
}

}  // namespace

std::string Names::block_tensor(int block, std::string_view part, std::string_view suffix) const {
  std::string name = block_prefix + std::to_string(block) + ".";
  name += part;
  name += suffix;
  return name;
}

Result<Names> find_names(std::string_view family, const checkpoint::Source& source) {
  Names names;
  if (source.is_gguf()) {
    names.block_prefix = "blk.";
    names.embedding = "token_embd.weight";
    names.final_norm = "output_norm.weight";
    names.lm_head = "output.weight";
    names.block = gguf_names(family);
    return names;
  }
  // The text model of a multimodal checkpoint lies under one of the longer prefixes.
  constexpr std::array<std::array<std::string_view, 2>, 3> kPrefixes = {
      {{"model.", ""}, {"language_model.model.", "language_model."}, {"model.language_model.", ""}}};
  for (const auto& [prefix, head_prefix] : kPrefixes) {
    const std::string blocks = std::string(prefix) + "layers.";
    const auto& tensors = source.tensors();
    if (std::none_of(tensors.begin(), tensors.end(),
                     [&blocks](const checkpoint::TensorInfo& t) { return t.name.starts_with(blocks); }))
      continue;
    names.block_prefix = blocks;
    names.embedding = std::string(prefix) + "embed_tokens.weight";
    names.final_norm = std::string(prefix) + "norm.weight";
    names.lm_head = std::string(head_prefix) + "lm_head.weight";
    names.block = hugging_face_names(family);
    return names;
  }
  return corrupt("the files hold no tensor model.layers.*: not a language model of a known layout");
}

bool is_ignorable(std::string_view name) {
  constexpr std::string_view kSuffixes[] = {"rotary_emb.inv_freq"};  // recomputed from the configuration
  constexpr std::string_view kPrefixes[] = {
      "rope_freqs.",   "rope_factors_long.",     "rope_factors_short.",  // read with the configuration
      "vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."};
  return std::any_of(std::begin(kSuffixes), std::end(kSuffixes),
                     [name](std::string_view s) { return name.ends_with(s); }) ||
         std::any_of(std::begin(kPrefixes), std::end(kPrefixes),
                     [name](std::string_view p) { return name.starts_with(p); });
}

}  // namespace tessera::weights
