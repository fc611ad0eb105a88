// The parts of a transformer block, shared by every family: they enqueue ops as the spec says.
#pragma once

#include "model/spec.h"
#include "tensor/backend.h"
#include "weights/load.h"

namespace tessera::model {

// Activations of one step, [rows of the step, ...] each.
struct Activations {
  tensor::Tensor x;                         // residual stream [rows, hidden]
  tensor::Tensor normed;                    // [rows, hidden]
  tensor::Tensor qkv;                       // [rows, (heads + 2 kv_heads) head_dim]
  tensor::Tensor heads;                     // attention's output [rows, heads head_dim]
  tensor::Tensor gate_up;                   // [rows, 2 ffn]
  tensor::Tensor gated;                     // [rows, ffn]
  tensor::Tensor out;                       // of attention or MLP, before it is added [rows, hidden]
  std::vector<tensor::Tensor> rope_tables;  // one per ModelSpec::ropes [rows, rotary_dim]
};

struct BlockContext {
  const ModelSpec& spec;
  const BlockSpec& block;
  const weights::BlockWeights& weights;
  const tensor::MoeParams& moe;  // of this block; no router if dense
  tensor::Backend& backend;
};

// x += attention(norm(x))
void enqueue_attention(const BlockContext& context, std::span<const StepSequence> sequences,
                       tensor::KvView kv, const Activations& a);
// x += mlp(norm(x)), dense or mixture of experts
void enqueue_mlp(const BlockContext& context, const Activations& a);

}  // namespace tessera::model
