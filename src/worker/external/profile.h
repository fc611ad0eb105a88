// What differs between engines that speak OpenAI's wire format: one constant for each, in engines/. Data
// only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/engine_messages.h"

namespace tessera::worker::external {

enum class MetricsFormat { kNone, kPrometheus, kTrtllmJson };

// Names are null where an engine has no such thing.
struct EngineProfile {
  const char* name = "";   // --engine
  const char* title = "";  // for people

  // --- what is asked with GET ---
  const char* health_path = "/health";    // 200 when it serves
  const char* version_path = nullptr;     // a JSON object …
  const char* version_pointer = nullptr;  // … and where in it the version stands (JSON pointer)
  // A model's context: in its entry of /v1/models, or in another answer.
  std::vector<const char*> context_in_model = {};
  const char* context_path = nullptr;
  const char* context_pointer = nullptr;
  const char* more_of_model_path = nullptr;  // POST {"model": NAME}; for what follows
  const char* context_suffix = nullptr;      // key of "model_info" that ends so

  // --- load: gauges, the first name that is there counts; summed over their labels ---
  MetricsFormat metrics = MetricsFormat::kNone;
  const char* metrics_path = "/metrics";
  std::vector<const char*> running = {};
  std::vector<const char*> waiting = {};
  std::vector<const char*> kv_use = {};

  // --- fields beside OpenAI's ---
  const char* top_k = nullptr;
  const char* min_p = nullptr;
  const char* repetition_penalty = nullptr;
  const char* min_tokens = nullptr;
  const char* ignore_eos = nullptr;
  const char* stop_token_ids = nullptr;
  const char* template_variables = nullptr;
  bool chat_ending = false;  // add_generation_prompt, continue_final_message
  bool logit_bias = true;
  bool echo = false;                 // in text completions
  const char* cache_salt = nullptr;  // text: requests of another salt share no prefix
  const char* cache_off = nullptr;   // boolean, set to false where a salt must keep prefixes apart
  const char* priority = nullptr;
  bool lower_is_first = true;  // of priority
  const char* request_id_header = nullptr;
  const char* request_id_field = nullptr;

  // --- ending a request: the connection is closed; some want to be told as well ---
  const char* abort_path = nullptr;  // POST {abort_field: request id}
  const char* abort_field = nullptr;

  // What its fields can, beside what is probed.
  EngineFeatures documented() const;
};

// Null for an unknown name.
const EngineProfile* find_profile(std::string_view name);
// "vllm, sglang, …"
std::string profile_names();

}  // namespace tessera::worker::external
