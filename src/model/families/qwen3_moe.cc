#include <algorithm>

#include "model/families.h"

namespace tessera::model {

void read_qwen3_moe(ConfigReader& config, ModelSpec& spec) {
  read_dimensions(config, spec, {.context_length = 32768});
  read_activation(config, spec, "hidden_act", "silu");
  read_rope(config, spec, 10000.0);
  spec.qk_norm = true;
  spec.attention_bias = spec.output_bias = config.flag("attention_bias", false);
  // The family's reference ignores max_window_layers; no published model uses a window.
  config.ignore("max_window_layers");
  config.ignore("sliding_window");
  if (config.flag("use_sliding_window", false))
    config.fail(config.refuse("use_sliding_window", "not supported for this family"));
  set_windows(config, spec, 0, [](int) { return false; });

  read_experts(config, spec, "num_experts", 128, 8);
  spec.normalise_top_k = config.flag("norm_topk_prob", false);
  const int step = config.count("decoder_sparse_step", 1, 1, spec.num_blocks);
  const std::vector<double> dense = config.numbers("mlp_only_layers", spec.blocks.size());
  for (int block = 0; block < spec.num_blocks; ++block)
    spec.moe[static_cast<size_t>(block)] =
        (block + 1) % step == 0 && std::find(dense.begin(), dense.end(), block) == dense.end();
}

}  // namespace tessera::model
