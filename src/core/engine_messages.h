// What a gateway and a worker that stands for another engine (vLLM, SGLang, …) say to each other: whole
// requests one way, text the other. Plain values; `wire` encodes them on the worker's control stream.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/sampling.h"
#include "core/types.h"

namespace tessera {

// What an engine can do: a set of bits. Those up to kTokenPrompts are probed when the engine is attached,
// with requests that only an engine which can do it answers rightly; the rest is what its documentation says
// of its own fields.
using EngineFeatures = uint32_t;
namespace engine_feature {
constexpr EngineFeatures kChat = 1u << 0;
constexpr EngineFeatures kText = 1u << 1;     // /v1/completions
constexpr EngineFeatures kChoices = 1u << 2;  // n above 1
constexpr EngineFeatures kLogprobs = 1u << 3;
constexpr EngineFeatures kTools = 1u << 4;
constexpr EngineFeatures kJsonObject = 1u << 5;
constexpr EngineFeatures kJsonSchema = 1u << 6;
constexpr EngineFeatures kTokenPrompts = 1u << 7;  // a prompt of token ids
constexpr EngineFeatures kTopK = 1u << 8;
constexpr EngineFeatures kMinP = 1u << 9;
constexpr EngineFeatures kRepetition = 1u << 10;  // repetition_penalty
constexpr EngineFeatures kMinTokens = 1u << 11;
constexpr EngineFeatures kIgnoreEos = 1u << 12;
constexpr EngineFeatures kStopIds = 1u << 13;
constexpr EngineFeatures kLogitBias = 1u << 14;
constexpr EngineFeatures kTemplate = 1u << 15;    // chat_template_kwargs
constexpr EngineFeatures kChatEnding = 1u << 16;  // add_generation_prompt, continue_final_message
constexpr EngineFeatures kEcho = 1u << 17;
constexpr EngineFeatures kCacheSalt = 1u << 18;  // tenants' prefixes stay apart
constexpr EngineFeatures kTokenIds = 1u << 19;   // tells the ids that it generated (only our own engine)
constexpr EngineFeatures kPromptLogprobs = 1u << 20;
constexpr EngineFeatures kProbed = (1u << 8) - 1;
constexpr EngineFeatures kAll = (1u << 21) - 1;

// As requests, status and messages call them, in the order of the bits.
constexpr std::array<std::string_view, 21> kNames = {"chat completions",
                                                     "text completions",
                                                     "n",
                                                     "logprobs",
                                                     "tools",
                                                     "json_object",
                                                     "json_schema",
                                                     "prompts of token ids",
                                                     "top_k",
                                                     "min_p",
                                                     "repetition_penalty",
                                                     "min_tokens",
                                                     "ignore_eos",
                                                     "stop_token_ids",
                                                     "logit_bias",
                                                     "chat_template_kwargs",
                                                     "add_generation_prompt",
                                                     "echo",
                                                     "cache_salt",
                                                     "return_token_ids",
                                                     "logprobs of the prompt"};
}  // namespace engine_feature

enum class EngineState : uint8_t { kStarting, kReady, kDown };

struct EngineModel {
  std::string name;        // the engine's own name for it
  int context_length = 0;  // 0: the engine does not say
  bool operator==(const EngineModel&) const = default;
};

// Worker → gateway, in Hello and in each Heartbeat of a worker that hosts an engine. Whole state.
struct EngineReport {
  std::string engine;   // "vllm"
  std::string version;  // as the engine says; empty: it does not
  EngineState state = EngineState::kStarting;
  std::string error;  // kDown: one sentence
  std::vector<EngineModel> models;
  EngineFeatures features = 0;
  int held = 0;            // requests of this cluster that the worker holds
  int running = -1;        // by the engine's own count, whoever they are from; -1: it does not say
  int waiting = -1;        // likewise, in its queue
  double kv_use = -1;      // share of its KV cache, 0 to 1; -1: it does not say
  int64_t answered = 0;    // requests since the worker started
  int64_t failed = 0;      // by the engine's fault
  int64_t miscounted = 0;  // answers whose usage was absent or impossible
  int64_t restarts = 0;    // of a process that the worker runs
};

// Gateway → worker: complete this. Validated; what the engine cannot do does not come.
struct EngineRequest {
  uint64_t id = 0;  // the gateway's own
  std::string request_id;
  std::string model;  // EngineModel::name
  bool chat = false;
  std::string messages;            // chat: JSON list
  std::string template_variables;  // JSON object or empty, as the next three
  std::string tools;
  std::string tool_choice;
  std::string response_format;
  bool answer_prompt = true;                                             // add_generation_prompt
  bool go_on = false;                                                    // continue_final_message
  std::vector<std::variant<std::string, std::vector<TokenId>>> prompts;  // text completions
  int n = 1;
  SamplingParams sampling;  // without seed, choice and max_tokens
  std::optional<uint64_t> seed;
  std::optional<int> max_tokens;
  std::vector<std::string> stop;
  bool echo = false;
  std::string cache_salt;
  int priority = 0;  // higher first
};
struct EngineCancel {
  uint64_t id = 0;
};

struct EngineToken {
  std::string text;
  std::string bytes;
  float logprob = 0;
};
struct EngineScore : EngineToken {
  std::vector<EngineToken> top;
  bool scored = true;  // false: an echoed prompt's first token
};
// Worker → gateway. Deltas of one request come in order, its EngineEnd last.
struct EngineDelta {
  uint64_t id = 0;
  int choice = 0;
  std::string text;
  std::string reasoning;
  std::string tool_calls;  // JSON list of OpenAI's deltas, or empty
  std::vector<EngineScore> scores;
  FinishReason finish = FinishReason::kNone;
  int tokens = 0;  // that it accounts for, as far as the engine's events tell
};
struct EngineEnd {
  uint64_t id = 0;
  int status = 0;  // 0: done; else the HTTP status that the client shall get
  std::string message;
  std::string type, param, code;
  bool engine_fault = false;  // the engine, not the request, is to blame
  int prompt_tokens = 0;
  int completion_tokens = 0;
  int cached_tokens = 0;
};

using EngineMessage = std::variant<EngineRequest, EngineCancel, EngineDelta, EngineEnd>;

}  // namespace tessera
