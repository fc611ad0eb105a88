// One request being answered: its choices, their sessions, and the text that comes out of them.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "api/completer.h"
#include "base/mutex.h"
#include "cluster/session_manager.h"
#include "gateway/reasoning.h"
#include "gateway/session_completer.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace tessera::gateway {

// prepare() runs once on the preparing executor, the rest on the sessions' executor; cancel() on any thread.
// The lock serialises the calls into the sink; nothing that blocks happens under it.
class Completion final : public std::enable_shared_from_this<Completion> {
 public:
  Completion(std::shared_ptr<const ServedModel> model, cluster::SessionManager& sessions,
             api::CompletionRequest request, std::shared_ptr<api::CompletionSink> sink);

  void prepare();
  void cancel();

 private:
  struct Choice {
    SessionId session = 0;
    bool done = false;
    bool begun = false;           // its first token has come
    int tokens = 0;               // generated so far
    std::string not_token_exact;  // for its next delta
    std::unique_ptr<text::IncrementalDetokenizer> detokenizer;
    std::unique_ptr<text::StopMatcher> stops;
    std::unique_ptr<ReasoningSplitter> reasoning;
  };
  class Observer;

  Result<std::vector<TokenId>> prompt_ids(const api::Prompt& prompt) const;
  // The request's field that a refused prompt came in.
  const char* prompt_field() const { return request_.chat ? "messages" : "prompt"; }
  Status prepare_prompts() TESSERA_REQUIRES(mutex_);
  Status check_length(std::vector<TokenId>& ids) TESSERA_REQUIRES(mutex_);
  void start_choice(int choice) TESSERA_REQUIRES(mutex_);
  void begin_answer() TESSERA_REQUIRES(mutex_);
  void fail(const api::ApiError& error) TESSERA_REQUIRES(mutex_);
  void fail(const Status& status) TESSERA_REQUIRES(mutex_);
  void cancel_sessions() TESSERA_REQUIRES(mutex_);

  void on_started(int choice, int cached_tokens);
  void on_inexact(int choice, const std::string& reason);
  void on_token(int choice, const Token& token);
  void on_failed(int choice, const Status& reason);

  void emit_echo(int choice, const Token& token) TESSERA_REQUIRES(mutex_);
  api::Delta make_delta(Choice& state, int choice, const Token& token) TESSERA_REQUIRES(mutex_);
  void append_text(Choice& state, api::Delta& delta, const std::string& text) TESSERA_REQUIRES(mutex_);
  void finish_choice(Choice& state) TESSERA_REQUIRES(mutex_);
  api::TokenScore score_of(TokenId id, const TokenLogprobs& logprobs) const;
  api::TokenText text_of(TokenId id) const;

  const std::shared_ptr<const ServedModel> model_;
  cluster::SessionManager& sessions_;
  const api::CompletionRequest request_;
  const std::shared_ptr<api::CompletionSink> sink_;
  // on_start was called: from then on a refusal would cut what the client has heard, before it is a status.
  const std::shared_ptr<std::atomic<bool>> begun_ = std::make_shared<std::atomic<bool>>(false);
  uint64_t seed_ = 0;

  Mutex mutex_;
  bool over_ TESSERA_GUARDED_BY(mutex_) = false;  // on_done or on_error was called, or cancelled
  std::vector<std::vector<TokenId>> prompts_ TESSERA_GUARDED_BY(mutex_);
  std::vector<int> max_tokens_ TESSERA_GUARDED_BY(mutex_);  // per prompt
  std::string prompt_tail_ TESSERA_GUARDED_BY(mutex_);      // end of the rendered chat
  std::vector<Choice> choices_ TESSERA_GUARDED_BY(mutex_);
  api::Usage usage_ TESSERA_GUARDED_BY(mutex_);
  int open_choices_ TESSERA_GUARDED_BY(mutex_) = 0;
};

}  // namespace tessera::gateway
