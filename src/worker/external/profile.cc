#include "worker/external/profile.h"

#include "worker/external/engines/engines.h"

namespace tessera::worker::external {
namespace {

const std::vector<EngineProfile>& profiles() {
  static const std::vector<EngineProfile> all = {vllm(),   sglang(),        tensorrt_llm(), llama_cpp(),
                                                 ollama(), tessera_serve(), plain_openai()};
  return all;
}

}  // namespace

EngineFeatures EngineProfile::documented() const {
  using namespace engine_feature;  // NOLINT: the bits
  EngineFeatures features = 0;
  const auto has = [&](bool field, EngineFeatures bit) {
    if (field) features |= bit;
  };
  has(top_k, kTopK);
  has(min_p, kMinP);
  has(repetition_penalty, kRepetition);
  has(min_tokens, kMinTokens);
  has(ignore_eos, kIgnoreEos);
  has(stop_token_ids, kStopIds);
  has(logit_bias, kLogitBias);
  has(template_variables, kTemplate);
  has(chat_ending, kChatEnding);
  has(echo, kEcho);
  has(cache_salt || cache_off, kCacheSalt);
  return features;
}

const EngineProfile* find_profile(std::string_view name) {
  for (const EngineProfile& profile : profiles())
    if (name == profile.name) return &profile;
  return nullptr;
}

std::string profile_names() {
  std::string names;
  for (const EngineProfile& profile : profiles())
    names += (names.empty() ? "" : ", ") + std::string(profile.name);
  return names;
}

}  // namespace tessera::worker::external
