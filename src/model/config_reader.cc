#include "model/config_reader.h"

#include <algorithm>
#include <cmath>

namespace tessera::model {
namespace {

// Written by training, tokenisation, generation or tooling; no result depends on them.
constexpr std::string_view kHarmless[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
    "_gguf_arch",
    "_name_or_path",
    "_sliding_window_pattern",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "do_sample",
    "dropout",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "mask_token_id",
    "model_max_length",
    "model_type",
    "name_or_path",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "use_flash_attn",
};

// Fields that change nothing at the value at which they switch nothing on; refused at any other.
struct Neutral {
  std::string_view key;
  double number;  // false is 0, true is 1
};
constexpr Neutral kNeutral[] = {
    {"add_cross_attention", 0},
    {"attention_bias", 0},
    {"attention_multiplier", 1},
    {"embedding_multiplier", 1},
    {"full_attn_mod", 1},
    {"interpolate_factor", 1},
    {"is_encoder_decoder", 0},
    {"lm_head_bias", 0},
    {"logit_scale", 1},
    {"logits_scaling", 1},
    {"mlp_bias", 0},
    {"n_shared_experts", 0},
    {"num_nextn_predict_layers", 0},
    {"pretraining_tp", 1},
    {"residual_multiplier", 1},
    {"rope_interleaved", 0},
    {"shared_expert_intermediate_size", 0},
    {"tie_encoder_decoder", 0},
    {"use_bidirectional_attention", 0},
    {"use_mrope", 0},
    {"use_qk_norm", 0},
    {"use_sliding_window", 0},
};

bool is_neutral(std::string_view key, const Json& value) {
  if (value.is_null() || (value.is_structured() && value.empty())) return true;
  const auto* found = std::find_if(std::begin(kNeutral), std::end(kNeutral),
                                   [key](const Neutral& n) { return n.key == key; });
  if (found == std::end(kNeutral)) return false;
  if (value.is_boolean()) return value.get<bool>() == (found->number == 1);
  return value.is_number() && value.get<double>() == found->number;
}

}  // namespace

ConfigReader::ConfigReader(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) fail(corrupt("the configuration " + where_ + " is not an object"));
}

const Json* ConfigReader::find(std::string_view key) const {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool ConfigReader::mentions(std::string_view key) const {
  return object_.is_object() && object_.contains(key);
}

const Json* ConfigReader::get(std::string_view key) {
  used_.insert(std::string(key));
  return find(key);
}

void ConfigReader::fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

Status ConfigReader::refuse(std::string_view key, std::string_view why) const {
  const Json* value = find(key);
  std::string shown = value == nullptr ? "" : dump_json(*value);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  return unsupported("configuration field " + where_ + std::string(key) +
                     (shown.empty() ? "" : " = " + shown) + ": " + std::string(why));
}

int ConfigReader::required_count(std::string_view key, int max) {
  if (get(key) == nullptr) {
    fail(corrupt("configuration field " + where_ + std::string(key) + " is missing"));
    return 1;
  }
  return count(key, 1, 1, max);
}

int ConfigReader::count(std::string_view key, int fallback, int min, int max) {
  const Json* value = get(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= min && number <= max) || number != std::floor(number)) {
    fail(refuse(key, "expected a whole number from " + std::to_string(min) + " to " + std::to_string(max)));
    return std::max(fallback, min);
  }
  return static_cast<int>(number);
}

double ConfigReader::number(std::string_view key, double fallback) {
  const Json* value = get(key);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    fail(refuse(key, "expected a number"));
    return fallback;
  }
  return value->get<double>();
}

double ConfigReader::positive(std::string_view key, double fallback) {
  const double value = number(key, fallback);
  if (value > 0 || !has(key)) return value;
  fail(refuse(key, "expected a positive number"));
  return 1;
}

float ConfigReader::soft_cap(std::string_view key, double fallback) {
  return static_cast<float>(positive(key, mentions(key) ? 0 : fallback));
}

bool ConfigReader::flag(std::string_view key, bool fallback) {
  const Json* value = get(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  fail(refuse(key, "expected true or false"));
  return fallback;
}

std::string ConfigReader::text(std::string_view key, std::string_view fallback) {
  const Json* value = get(key);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  fail(refuse(key, "expected a text"));
  return std::string(fallback);
}

std::vector<double> ConfigReader::numbers(std::string_view key, size_t max_size) {
  const Json* value = get(key);
  if (value == nullptr) return {};
  std::vector<double> numbers;
  const bool list = value->is_array() && value->size() <= max_size;
  if (list) {
    for (const Json& item : *value)
      if (item.is_number() && std::isfinite(item.get<double>())) numbers.push_back(item.get<double>());
  }
  if (!list || numbers.size() != value->size()) {
    fail(refuse(key, "expected a list of at most " + std::to_string(max_size) + " numbers"));
    return {};
  }
  return numbers;
}

std::vector<int> ConfigReader::token_ids(std::string_view key, int vocab) {
  const Json* value = get(key);
  if (value == nullptr) return {};
  std::vector<int> ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& item : list) {
    if (!item.is_number_integer()) {
      fail(refuse(key, "expected a token id or a list of them"));
      return {};
    }
    // Ids past the vocabulary can never be sampled: some published configurations hold them.
    const auto id = item.get<int64_t>();
    if (id >= 0 && id < vocab) ids.push_back(static_cast<int>(id));
  }
  return ids;
}

Status ConfigReader::finish() const {
  TESSERA_RETURN_IF_ERROR(status_);
  for (const auto& [key, value] : object_.items()) {
    if (used_.contains(key) || is_neutral(key, value)) continue;
    if (where_.empty() && std::find(std::begin(kHarmless), std::end(kHarmless), key) != std::end(kHarmless))
      continue;
    if (key == "quantization_config")
      return refuse(key, "this quantisation of safetensors is not supported; use a GGUF file");
    return refuse(key, "not known here, and it could change the result");
  }
  return {};
}

}  // namespace tessera::model
