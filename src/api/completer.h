// Completer: a validated request in, deltas out. Our own sessions (gateway) and foreign engines
// (worker/external) implement it; nothing above knows the difference.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "core/engine_messages.h"
#include "core/sampling.h"
#include "core/types.h"
#include "text/chat_ending.h"

namespace tessera::api {

// One prompt: text, or token ids taken as they are.
using Prompt = std::variant<std::string, std::vector<TokenId>>;

// A request after validation: every field is in range, defaults are filled in.
struct CompletionRequest {
  std::string request_id;
  std::string model;
  bool chat = false;
  std::shared_ptr<const OrderedJson> messages;  // chat: the messages, content parts flattened to text
  std::shared_ptr<const OrderedJson> template_variables;  // chat_template_kwargs; object or null
  text::ChatEnding chat_ending = text::ChatEnding::kAnswerPrompt;
  std::vector<Prompt> prompts;    // text completions: one or more
  int n = 1;                      // choices of each prompt; choice index = prompt * n + k
  SamplingParams sampling;        // seed and choice are set per choice by the completer
  std::optional<uint64_t> seed;   // none: random
  std::optional<int> max_tokens;  // none: as much as the context holds (chat), 16 (text)
  std::vector<std::string> stop;  // stop strings
  // Text completions: the first delta of each choice carries the prompt's text, and its scores if
  // sampling.prompt_logprobs.
  bool echo = false;
  bool return_token_ids = false;
  std::string cache_salt;
  int priority = 0;    // higher first
  std::string tenant;  // whose turn it takes where tenants wait for each other
  int64_t weight = 1;  // that tenant's share
  // What only other engines can do so far (ModelInfo::beyond): as the client wrote it, shape checked; or
  // null.
  std::shared_ptr<const OrderedJson> tools, tool_choice, response_format;
};

struct TokenText {
  TokenId id = -1;
  std::string text;   // the token's own bytes as text, invalid UTF-8 replaced
  std::string bytes;  // raw
  float logprob = 0;
};
struct TokenScore : TokenText {
  std::vector<TokenText> top;  // best first
  bool scored = true;          // false: first prompt token (no probability)
};

struct Delta {
  int choice = 0;
  std::string text;                  // may be empty (half a character, possible start of a stop string)
  std::string reasoning;             // chat: text between the template's thinking marks
  std::vector<TokenId> token_ids;    // generated ids that this delta accounts for
  std::vector<TokenScore> logprobs;  // if asked for
  FinishReason finish = FinishReason::kNone;      // not kNone on a choice's last delta
  std::string not_token_exact;                    // as in Start, when it turns out later: from this delta on
  std::shared_ptr<const OrderedJson> tool_calls;  // chat: a list of OpenAI's deltas, or null
  int unnamed_tokens = 0;  // generated tokens beside token_ids, from an engine that does not tell ids
};

struct Usage {
  int prompt_tokens = 0;      // of all prompts, each counted once
  int completion_tokens = 0;  // of all choices
  int cached_tokens = 0;
};

// An error as OpenAI's clients read it.
struct ApiError {
  int status = 500;
  std::string message;
  std::string type =
      "server_error";  // invalid_request_error, authentication_error, rate_limit_error, server_error …
  std::string param;   // empty = null
  std::string code;    // empty = null
  std::optional<int> retry_after_s;  // with 429 and 503
};

// Receives a completion; calls come one after another, from any thread, and must not block. After on_done or
// on_error nothing more comes. `false` from on_delta: the client is gone, cancel.
class CompletionSink {
 public:
  virtual ~CompletionSink() = default;
  // Once, before the first delta: what the answer's head needs.
  struct Start {
    std::string system_fingerprint;
    std::vector<std::vector<TokenId>> prompt_token_ids;  // if return_token_ids
    int prompt_tokens = 0;                               // of all prompts; 0: only Usage will tell
    std::string
        not_token_exact;  // reason, when invariant I1 does not hold for this answer; empty when it does
  };
  virtual void on_start(const Start& start) = 0;
  virtual bool on_delta(const Delta& delta) = 0;
  virtual void on_done(const Usage& usage) = 0;
  virtual void on_error(const ApiError& error) = 0;
};

// What a served model can do: decides 400s before any work.
struct ModelInfo {
  std::string id;
  int64_t created = 0;  // unix seconds
  int context_length = 0;
  int vocab_size = 0;
  bool has_tokenizer = true;
  bool has_chat_template = true;
  EngineFeatures beyond = 0;  // what an engine that serves it can do and ours cannot yet: tools, JSON schemas
};

// Thread-safe.
class Completer {
 public:
  virtual ~Completer() = default;
  virtual ModelInfo info() const = 0;
  // Returns at once; everything, refusals too, arrives through the sink. The returned function cancels
  // (idempotent, any thread); the sink then gets on_error with status 499 or nothing more.
  virtual std::function<void()> submit(CompletionRequest request, std::shared_ptr<CompletionSink> sink) = 0;
  // For POST /tokenize and /detokenize; Unsupported without tokenizer.
  virtual Result<std::vector<TokenId>> tokenize(const std::string& text, bool add_special_tokens) const = 0;
  virtual Result<std::vector<TokenId>> tokenize_chat(const OrderedJson& messages,
                                                     const OrderedJson* variables,
                                                     text::ChatEnding ending) const = 0;
  virtual Result<std::string> detokenize(const std::vector<TokenId>& ids) const = 0;
  virtual std::string token_text(TokenId id) const = 0;
};

}  // namespace tessera::api
