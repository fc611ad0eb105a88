#include "model/spec.h"

#include <algorithm>

#include "model/families.h"

namespace tessera::model {
namespace {

// The text model inside a multimodal configuration; what the outer object says of tokens and tying counts
// where the inner one is silent. Images never reach this model, so the vision parts are of no account.
Result<Json> text_config_of(const Json& config) {
  const auto inner = config.find("text_config");
  if (inner == config.end() || !inner->is_object())
    return corrupt("configuration field text_config is missing");
  if (config.contains("quantization_config") && !config["quantization_config"].is_null())
    return unsupported("configuration field quantization_config: use a GGUF file");
  Json text = *inner;
  text["model_type"] = "gemma3_text";
  for (const char* key : {"bos_token_id", "eos_token_id", "tie_word_embeddings"})
    if (!text.contains(key) && config.contains(key)) text[key] = config[key];
  // What the family's class leaves out of the file where it equals its default.
  const Json defaults = {{"vocab_size", 262208},    {"hidden_size", 2304},      {"intermediate_size", 9216},
                         {"num_hidden_layers", 26}, {"num_attention_heads", 8}, {"num_key_value_heads", 4},
                         {"head_dim", 256}};
  for (const auto& [key, value] : defaults.items())
    if (!text.contains(key)) text[key] = value;
  return text;
}

void read_end_tokens(ConfigReader& config, const Json& generation_config, ModelSpec& spec) {
  const Json none = Json::object();
  ConfigReader generation(generation_config.is_object() ? generation_config : none, "generation_config ");
  spec.end_tokens = config.token_ids("eos_token_id", spec.vocab);
  for (TokenId id : generation.token_ids("eos_token_id", spec.vocab))
    if (std::find(spec.end_tokens.begin(), spec.end_tokens.end(), id) == spec.end_tokens.end())
      spec.end_tokens.push_back(id);
  const auto bos = config.token_ids("bos_token_id", spec.vocab);
  const auto generation_bos = generation.token_ids("bos_token_id", spec.vocab);
  if (!bos.empty()) spec.bos_token = bos.front();
  if (!generation_bos.empty()) spec.bos_token = generation_bos.front();
  config.fail(generation.status());
}

}  // namespace

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
      {"gemma2", read_gemma2},   {"gemma3_text", read_gemma3}, {"llama", read_llama},
      {"mistral", read_mistral}, {"mixtral", read_mixtral},    {"phi3", read_phi3},
      {"qwen2", read_qwen2},     {"qwen3", read_qwen3},        {"qwen3_moe", read_qwen3_moe},
  };
  return kFamilies;
}

std::vector<std::string> known_families() {
  std::vector<std::string> names = {"gemma3"};
  for (const Family& family : families()) names.emplace_back(family.model_type);
  std::sort(names.begin(), names.end());
  return names;
}

Result<ModelSpec> read_spec(const Json& config, const Json& generation_config) {
  const auto type = config.is_object() ? config.find("model_type") : config.end();
  if (!config.is_object() || type == config.end() || !type->is_string())
    return corrupt("configuration field model_type is missing");
  const auto name = type->get<std::string>();
  if (name == "gemma3") {
    TESSERA_ASSIGN_OR_RETURN(const Json text, text_config_of(config));
    return read_spec(text, generation_config);
  }
  for (const Family& family : families()) {
    if (family.model_type != name) continue;
    ModelSpec spec;
    spec.family = name;
    ConfigReader reader(config);
    family.read(reader, spec);
    read_end_tokens(reader, generation_config, spec);
    TESSERA_RETURN_IF_ERROR(reader.finish());
    return spec;
  }
  std::string known;
  for (const std::string& family : known_families()) known += (known.empty() ? "" : ", ") + family;
  return unsupported(
      "model family " + dump_json(*type) + "; known are " + known +
      ". Another engine that loads it can serve it here: tessera worker --engine vllm|sglang|… --url …");
}

}  // namespace tessera::model
