#include "gateway/completion.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/errors.h"
#include "base/rng.h"
#include "base/utf8.h"

namespace tessera::gateway {

// The ear of one choice's session; keeps the completion alive while the session runs.
class Completion::Observer final : public cluster::SessionObserver {
 public:
  Observer(std::shared_ptr<Completion> completion, int choice)
      : completion_(std::move(completion)), choice_(choice) {}
  void on_started(int cached_tokens) override { completion_->on_started(choice_, cached_tokens); }
  void on_inexact(const std::string& reason) override { completion_->on_inexact(choice_, reason); }
  void on_token(const Token& token) override { completion_->on_token(choice_, token); }
  void on_failed(const Status& reason) override { completion_->on_failed(choice_, reason); }

 private:
  const std::shared_ptr<Completion> completion_;
  const int choice_;
};

Completion::Completion(std::shared_ptr<const ServedModel> model, cluster::SessionManager& sessions,
                       api::CompletionRequest request, std::shared_ptr<api::CompletionSink> sink)
    : model_(std::move(model)), sessions_(sessions), request_(std::move(request)), sink_(std::move(sink)) {
  seed_ = request_.seed ? *request_.seed : system_entropy();
}

// --- preparing
// -------------------------------------------------------------------------------------------------------

Result<std::vector<TokenId>> Completion::prompt_ids(const api::Prompt& prompt) const {
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return *ids;
  if (model_->text.tokenizer == nullptr)
    return unsupported("this model ships no tokenizer: send the prompt as a list of token ids");
  return model_->text.tokenizer->encode(std::get<std::string>(prompt), {});
}

Status Completion::check_length(std::vector<TokenId>& ids) {
  const int context = model_->info.context_length;
  const int length = static_cast<int>(ids.size());
  const int wanted = request_.max_tokens.value_or(request_.chat ? context : 16);
  if (length > context || (length == context && wanted > 0)) {
    fail(api::context_length_exceeded(length, context, prompt_field()));
    return invalid_argument("too long");
  }
  max_tokens_.push_back(std::min(wanted, context - length));
  usage_.prompt_tokens += length;
  prompts_.push_back(std::move(ids));
  return {};
}

Status Completion::prepare_prompts() {
  if (request_.chat) {
    TESSERA_ASSIGN_OR_RETURN(std::string rendered,
                             model_->text.render_chat(*request_.messages, nullptr, request_.chat_ending,
                                                      request_.template_variables.get()));
    TESSERA_ASSIGN_OR_RETURN(auto ids, model_->text.encode_chat(rendered));
    prompt_tail_ = rendered.size() > 64 ? rendered.substr(rendered.size() - 64) : rendered;
    return check_length(ids);
  }
  for (const api::Prompt& prompt : request_.prompts) {
    TESSERA_ASSIGN_OR_RETURN(auto ids, prompt_ids(prompt));
    if (ids.empty()) return invalid_argument("the prompt is empty");
    TESSERA_RETURN_IF_ERROR(check_length(ids));
  }
  return {};
}

void Completion::prepare() {
  MutexLock lock(mutex_);
  if (over_) return;
  if (Status status = prepare_prompts(); !status.ok()) {
    api::ApiError error = api::error_from_status(status);
    if (status.code() == Code::kInvalidArgument) error.param = prompt_field();
    fail(error);
    return;
  }
  open_choices_ = static_cast<int>(prompts_.size()) * request_.n;
  choices_.resize(static_cast<size_t>(open_choices_));
  // The first choice of each prompt goes ahead; its siblings follow at its first token and find the prompt in
  // the cache.
  for (int choice = 0; choice < static_cast<int>(choices_.size()) && !over_; choice += request_.n)
    start_choice(choice);
}

// The answer's head waits for the first session that runs: until then a full queue or a missing worker is a
// status that the client can act on, and not an error inside an answer that began well.
void Completion::begin_answer() {
  if (over_ || begun_->load()) return;
  api::CompletionSink::Start start;
  start.system_fingerprint = model_->system_fingerprint;
  start.prompt_tokens = usage_.prompt_tokens;
  if (request_.return_token_ids) start.prompt_token_ids = prompts_;
  begun_->store(true);
  sink_->on_start(start);
}

void Completion::start_choice(int choice) {
  const size_t prompt = static_cast<size_t>(choice / request_.n);
  Choice& state = choices_[static_cast<size_t>(choice)];
  if (model_->text.tokenizer != nullptr)
    state.detokenizer = std::make_unique<text::IncrementalDetokenizer>(model_->text.tokenizer);
  state.stops = std::make_unique<text::StopMatcher>(request_.stop);
  if (request_.chat && ReasoningSplitter::template_marks_thinking(model_->text.chat_template_source))
    state.reasoning = std::make_unique<ReasoningSplitter>(prompt_tail_);

  cluster::SessionRequest session;
  session.prompt = prompts_[prompt];
  session.params = request_.sampling;
  session.params.seed = seed_;
  session.params.choice = static_cast<uint32_t>(choice);
  session.params.max_tokens = max_tokens_[prompt];
  session.params.prompt_logprobs = request_.echo && session.params.top_logprobs >= 0;
  session.salt = request_.cache_salt;
  session.priority = request_.priority;
  session.answer_begun = begun_;
  session.tenant = request_.tenant;
  session.weight = request_.weight;
  Result<SessionId> id =
      sessions_.submit(std::move(session), std::make_shared<Observer>(shared_from_this(), choice));
  if (!id.ok()) {
    fail(id.status());
    return;
  }
  state.session = *id;
}

// --- ending
// ----------------------------------------------------------------------------------------------------------

void Completion::cancel_sessions() {
  over_ = true;
  for (Choice& choice : choices_)
    if (choice.session != 0 && !choice.done) sessions_.cancel(choice.session);
}

void Completion::cancel() {
  MutexLock lock(mutex_);
  if (!over_) cancel_sessions();
}

void Completion::fail(const api::ApiError& error) {
  if (over_) return;
  cancel_sessions();
  sink_->on_error(error);
}

void Completion::fail(const Status& status) {
  fail(api::error_from_status(status));
}

void Completion::on_failed(int choice, const Status& reason) {
  MutexLock lock(mutex_);
  choices_[static_cast<size_t>(choice)].done = true;
  fail(reason);
}

void Completion::finish_choice(Choice& state) {
  state.done = true;
  if (--open_choices_ > 0) return;
  over_ = true;
  sink_->on_done(usage_);
}

// --- tokens to text
// --------------------------------------------------------------------------------------------------

void Completion::on_started(int choice, int cached_tokens) {
  MutexLock lock(mutex_);
  begin_answer();
  if (choice % request_.n == 0) usage_.cached_tokens += cached_tokens;
}

void Completion::on_inexact(int choice, const std::string& reason) {
  MutexLock lock(mutex_);
  choices_[static_cast<size_t>(choice)].not_token_exact = reason;
}

api::TokenText Completion::text_of(TokenId id) const {
  api::TokenText text;
  text.id = id;
  if (model_->text.tokenizer != nullptr && id >= 0) {
    text.bytes = model_->text.tokenizer->token_bytes(id);
    text.text = replace_invalid_utf8(text.bytes);
  }
  return text;
}

api::TokenScore Completion::score_of(TokenId id, const TokenLogprobs& logprobs) const {
  api::TokenScore score;
  static_cast<api::TokenText&>(score) = text_of(id);
  score.logprob = logprobs.logprob;
  for (const auto& [token, logprob] : logprobs.top) {
    score.top.push_back(text_of(token));
    score.top.back().logprob = logprob;
  }
  return score;
}

void Completion::append_text(Choice& state, api::Delta& delta, const std::string& text) {
  if (state.reasoning == nullptr) {
    delta.text += text;
    return;
  }
  ReasoningSplitter::Out out = state.reasoning->push(text);
  delta.text += out.text;
  delta.reasoning += out.reasoning;
}

// The prompt as the first delta of a choice, with its scores where they were asked for.
void Completion::emit_echo(int choice, const Token& token) {
  const std::vector<TokenId>& prompt = prompts_[static_cast<size_t>(choice / request_.n)];
  api::Delta delta;
  delta.choice = choice;
  if (model_->text.tokenizer != nullptr) {
    auto text = model_->text.tokenizer->decode(prompt, /*skip_special_tokens=*/false);
    if (text.ok()) delta.text = std::move(text).value();
  }
  for (size_t i = 0; request_.sampling.top_logprobs >= 0 && i < prompt.size(); ++i) {
    const bool scored = i > 0 && i < token.prompt_logprobs.size();
    delta.logprobs.push_back(
        score_of(prompt[i], scored ? token.prompt_logprobs[i].logprobs : TokenLogprobs{}));
    delta.logprobs.back().scored = scored;
  }
  if (!sink_->on_delta(delta)) cancel_sessions();
}

api::Delta Completion::make_delta(Choice& state, int choice, const Token& token) {
  api::Delta delta;
  delta.choice = choice;
  delta.finish = token.finish;
  delta.not_token_exact = std::exchange(state.not_token_exact, {});
  const TokenId id = token.sampled.token;
  if (id >= 0) {
    ++usage_.completion_tokens;
    ++state.tokens;
    delta.token_ids.push_back(id);
    if (token.sampled.has_logprobs && token.finish != FinishReason::kStop)
      delta.logprobs.push_back(score_of(id, token.sampled.logprobs));
  }
  std::string text;
  if (state.detokenizer != nullptr) {
    if (id >= 0 && token.finish != FinishReason::kStop)
      text = state.detokenizer->push(id);  // a stop token is no text
    if (token.finish != FinishReason::kNone) text += state.detokenizer->finish();
  }
  text::StopMatcher::Out matched = state.stops->push(text, state.tokens > request_.sampling.min_tokens);
  if (matched.stopped) {
    delta.finish = FinishReason::kStop;
  } else if (token.finish != FinishReason::kNone) {
    matched.text += state.stops->finish();
  }
  append_text(state, delta, matched.text);
  if (delta.finish != FinishReason::kNone && state.reasoning != nullptr) {
    ReasoningSplitter::Out rest = state.reasoning->finish();
    delta.text += rest.text;
    delta.reasoning += rest.reasoning;
  }
  return delta;
}

void Completion::on_token(int choice, const Token& token) {
  MutexLock lock(mutex_);
  Choice& state = choices_[static_cast<size_t>(choice)];
  if (over_ || state.done) return;
  if (!state.begun) {
    state.begun = true;
    if (request_.echo) emit_echo(choice, token);
    if (choice % request_.n == 0)
      for (int sibling = choice + 1; sibling < choice + request_.n && !over_; ++sibling)
        start_choice(sibling);
    if (over_) return;
  }
  const api::Delta delta = make_delta(state, choice, token);
  if (delta.finish != FinishReason::kNone && token.finish == FinishReason::kNone)
    sessions_.cancel(state.session);
  const bool wanted = sink_->on_delta(delta);
  if (delta.finish != FinishReason::kNone) {
    finish_choice(state);
  } else if (!wanted) {
    cancel_sessions();
  }
}

}  // namespace tessera::gateway
