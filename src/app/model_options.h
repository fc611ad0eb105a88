// Options that every verb shares which loads a model.
#pragma once

#include <string>

#include "base/config.h"

namespace tessera::app {

struct ModelOptions {
  std::string model;
  std::string served_name;
  std::string blocks;
  int threads = 0;
  std::string quantize;
  std::string dtype = "auto";
  std::string kv_dtype = "auto";
  ByteSize kv_memory{uint64_t{2} << 30};
  int max_batch_tokens = 512;
  int max_sequences = 256;
  int context = 0;
  std::string device = "auto";
  std::string isa = "auto";
  bool deterministic = false;
  bool no_prefix_cache = false;

  template <typename V>
  void fields(V& v) {
    v("model", model,
      "a .gguf file, a folder with config.json and safetensors, ORG/NAME of the hub, or a short name");
    v("blocks", blocks, "cut the model into block ranges, e.g. 0:8,8:30; same tokens, for trying a cut out");
    v("threads", threads, "threads of the CPU backend; 0 = one per core");
    v("quantize", quantize, "quantise float weights at load: int8 or int4");
    v("dtype", dtype,
      "auto (as stored) or float32 (the exact, slow reference path); bfloat16 for bf16 checkpoints");
    v("kv-dtype", kv_dtype, "auto, float32, bfloat16 or float16");
    v("kv-memory", kv_memory,
      "memory for the KV cache; it also bounds how much prompt text is kept for reuse");
    v("max-batch-tokens", max_batch_tokens,
      "rows of one step: longer prompts are fed in chunks of this size");
    v("max-sequences", max_sequences, "sequences that run at once; more wait");
    v("context", context, "tokens a sequence may grow to; 0 = what the model was made for");
    v("device", device, "auto or cpu");
    v("isa", isa, "auto, portable, avx2 or avx512: force a kernel path");
    v("no-prefix-cache", no_prefix_cache, "compute every prompt anew (to measure what the cache gives)");
    v("deterministic", deterministic, "same tokens whatever the batch (always so on the CPU)");
  }
};

}  // namespace tessera::app
