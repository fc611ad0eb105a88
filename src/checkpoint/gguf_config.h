// GGUF metadata in the words of a Hugging Face config.json, so that one parser per family serves both.
#pragma once

#include "base/json.h"
#include "checkpoint/gguf.h"

namespace tessera::checkpoint {

// model_type is general.architecture in Hugging Face's spelling (qwen3moe → qwen3_moe, gemma3 → gemma3_text,
// phi3, …; llama with experts → mixtral; an unknown architecture stays as it is). Absent metadata gets the
// value that the format's own runtime assumes. Keys that only GGUF has:
//   _gguf_arch              general.architecture; present in every config made here
//   _gguf_rope_interleaved  true for architecture llama: the rows of attn_q and attn_k are stored in the
//   order
//                           of interleaved rotary pairs (2i, 2i+1), not of halves (i, i + head_dim/2)
//   _gguf_norm_plus_one     true for the Gemmas: norm weights are stored with the 1 already added
//   _gguf_rope_factors      values of the tensor rope_freqs.weight (Llama 3's rope scaling): each inverse
//                           frequency is divided by its factor
// The tensors themselves stay as stored. Refuses per-block differences and key/value lengths that no family
// here has.
Result<Json> gguf_config(const GgufFile& file);

// bos_token_id, and eos_token_id as a list of every token that ends a turn (eos, eot, eom).
Json gguf_generation_config(const GgufFile& file);

}  // namespace tessera::checkpoint
