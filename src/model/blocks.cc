#include "model/blocks.h"

namespace tessera::model {
namespace {

// Adds a sub-layer's output to the residual stream, normed first where the family does so.
void add_output(const BlockContext& context, const std::vector<float>& post_norm, const Activations& a) {
  if (!post_norm.empty()) context.backend.rms_norm(a.out, post_norm, context.spec.norm_eps, a.out);
  context.backend.add(a.x, a.out);
}

}  // namespace

void enqueue_attention(const BlockContext& context, std::span<const StepSequence> sequences,
                       tensor::KvView kv, const Activations& a) {
  const ModelSpec& spec = context.spec;
  const weights::BlockWeights& w = context.weights;
  tensor::Backend& backend = context.backend;
  const int64_t q_cols = int64_t{spec.heads} * spec.head_dim;
  const int64_t kv_cols = int64_t{spec.kv_heads} * spec.head_dim;

  backend.rms_norm(a.x, w.attention_norm, spec.norm_eps, a.normed);
  backend.matmul(a.normed, *w.qkv, w.qkv_bias, a.qkv);
  const tensor::Tensor q = a.qkv.slice_cols(0, q_cols);
  const tensor::Tensor k = a.qkv.slice_cols(q_cols, kv_cols);
  const tensor::Tensor v = a.qkv.slice_cols(q_cols + kv_cols, kv_cols);
  if (spec.qk_norm) {
    backend.rms_norm(q, w.q_norm, spec.norm_eps, q);
    backend.rms_norm(k, w.k_norm, spec.norm_eps, k);
  }
  const auto rope = static_cast<size_t>(context.block.rope);
  const int rotary_dim = spec.ropes[rope].rotary_dim;
  backend.rope(q, spec.head_dim, rotary_dim, a.rope_tables[rope]);
  backend.rope(k, spec.head_dim, rotary_dim, a.rope_tables[rope]);
  backend.kv_write(k, v, sequences, kv);
  backend.attention(q, kv, sequences,
                    {spec.heads, spec.kv_heads, spec.head_dim, spec.attention_scale, spec.attention_softcap,
                     context.block.window},
                    a.heads);
  backend.matmul(a.heads, *w.output, w.output_bias, a.out);
  add_output(context, w.post_attention_norm, a);
}

void enqueue_mlp(const BlockContext& context, const Activations& a) {
  const ModelSpec& spec = context.spec;
  const weights::BlockWeights& w = context.weights;
  tensor::Backend& backend = context.backend;
  backend.rms_norm(a.x, w.mlp_norm, spec.norm_eps, a.normed);
  if (w.router != nullptr) {
    backend.moe(a.normed, context.moe, a.out);
  } else {
    backend.matmul(a.normed, *w.gate_up, w.gate_up_bias, a.gate_up);
    backend.gated_activation(a.gate_up, spec.activation, a.gated);
    backend.matmul(a.gated, *w.down, w.down_bias, a.out);
  }
  add_output(context, w.post_mlp_norm, a);
}

}  // namespace tessera::model
