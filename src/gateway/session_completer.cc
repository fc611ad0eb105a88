#include "gateway/session_completer.h"

#include <nlohmann/json.hpp>

#include "gateway/completion.h"

namespace tessera::gateway {
namespace {

class SessionCompleter final : public api::Completer {
 public:
  SessionCompleter(ServedModel model, cluster::SessionManager& sessions, Executor& prepare)
      : model_(std::make_shared<const ServedModel>(std::move(model))),
        sessions_(sessions),
        prepare_(prepare) {}

  api::ModelInfo info() const override { return model_->info; }

  std::function<void()> submit(api::CompletionRequest request,
                               std::shared_ptr<api::CompletionSink> sink) override {
    auto completion = std::make_shared<Completion>(model_, sessions_, std::move(request), std::move(sink));
    prepare_.post([completion] { completion->prepare(); });
    // Through the executor: a sink may cancel from within one of its own calls.
    return [&prepare = prepare_, weak = std::weak_ptr<Completion>(completion)] {
      prepare.post([weak] {
        if (auto alive = weak.lock()) alive->cancel();
      });
    };
  }

  Result<std::vector<TokenId>> tokenize(const std::string& text, bool add_special_tokens) const override {
    if (model_->text.tokenizer == nullptr) return no_tokenizer();
    return model_->text.tokenizer->encode(text, {.add_special_tokens = add_special_tokens});
  }

  Result<std::vector<TokenId>> tokenize_chat(const OrderedJson& messages, const OrderedJson* variables,
                                             text::ChatEnding ending) const override {
    TESSERA_ASSIGN_OR_RETURN(std::string rendered,
                             model_->text.render_chat(messages, nullptr, ending, variables));
    return model_->text.encode_chat(rendered);
  }

  Result<std::string> detokenize(const std::vector<TokenId>& ids) const override {
    if (model_->text.tokenizer == nullptr) return no_tokenizer();
    return model_->text.tokenizer->decode(ids);
  }

  std::string token_text(TokenId id) const override {
    return model_->text.tokenizer == nullptr ? std::string() : model_->text.tokenizer->token_text(id);
  }

 private:
  static Status no_tokenizer() { return unsupported("this model ships no tokenizer"); }

  const std::shared_ptr<const ServedModel> model_;
  cluster::SessionManager& sessions_;
  Executor& prepare_;
};

}  // namespace

std::shared_ptr<api::Completer> make_session_completer(ServedModel model, cluster::SessionManager& sessions,
                                                       Executor& prepare) {
  return std::make_shared<SessionCompleter>(std::move(model), sessions, prepare);
}

}  // namespace tessera::gateway
