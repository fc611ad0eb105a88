// run: one answer, streamed to the terminal.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/local_chat.h"

namespace tessera::app {
namespace {

struct RunOptions : ModelOptions {
  std::string prompt;
  std::string system;
  std::optional<int> max_tokens;
  double temperature = 1.0;
  std::optional<double> top_p;
  std::optional<int> seed;
  bool raw = false;
  template <typename V>
  void fields(V& v) {
    v("=PROMPT", prompt, "the question; without it stdin is read");
    v("system", system, "a system message before it");
    v("max-tokens", max_tokens, "tokens of the answer at most");
    v("temperature", temperature, "0 = always the likeliest token");
    v("top-p", top_p, "sample from the likeliest tokens that hold this share of probability");
    v("seed", seed, "same seed, same answer");
    v("raw", raw, "take the prompt as it is, without the chat template");
    ModelOptions::fields(v);
  }
};

int run(RunOptions& options) {
  if (options.prompt.empty() && isatty(STDIN_FILENO) != 0)
    return report(invalid_argument("give a prompt: tessera run --model NAME \"your question\""));
  if (options.prompt.empty()) {
    options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    while (!options.prompt.empty() && !options.raw && options.prompt.back() == '\n')
      options.prompt.pop_back();
    if (options.prompt.empty())
      return report(invalid_argument("the prompt is empty: give one as argument or on stdin"));
  }
  if (options.temperature < 0 || options.temperature > 2)
    return report(invalid_argument("--temperature is between 0 and 2"));
  if (options.max_tokens && *options.max_tokens < 1)
    return report(invalid_argument("--max-tokens is at least 1"));
  auto local = LocalCluster::start(options, nullptr);
  if (!local.ok()) return report(local.status());
  LocalCompleter completer(**local);
  const api::ModelInfo info = completer.get()->info();
  if (!info.has_tokenizer)
    return report(
        unsupported(options.model +
                    " ships no tokenizer, so `run` has no words for it: `tessera serve` takes token ids, "
                    "and so does `tessera logits`"));

  api::CompletionRequest request;
  request.chat = !options.raw && info.has_chat_template;
  if (!request.chat && !options.system.empty())
    return report(
        unsupported("--system needs a chat template, which " +
                    std::string(options.raw ? "--raw leaves out" : options.model + " does not ship")));
  request.sampling.temperature = static_cast<float>(options.temperature);
  request.sampling.top_p = static_cast<float>(options.top_p.value_or(1.0));
  request.max_tokens =
      options.max_tokens ? options.max_tokens : std::optional<int>(request.chat ? 1024 : 256);
  if (options.seed) request.seed = static_cast<uint64_t>(*options.seed);
  if (request.chat) {
    OrderedJson messages = OrderedJson::array();
    if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
    messages.push_back({{"role", "user"}, {"content", options.prompt}});
    request.messages = std::make_shared<const OrderedJson>(std::move(messages));
  } else {
    request.prompts = {options.prompt};
  }
  InterruptGuard interrupts;
  const Answer answer = stream_answer(*completer.get(), std::move(request), interrupts);
  if (answer.status.ok() || !answer.text.empty()) std::fputc('\n', stdout);
  if (!answer.status.ok()) return report(answer.status);
  return answer.interrupted ? kInterrupted : kDone;
}

}  // namespace

Command run_command() {
  auto options = std::make_shared<RunOptions>();
  return {"run", "one answer from a model in this process",
          "  tessera run --model smollm2:135m \"Why is the sky blue?\"\n  cat notes.txt | tessera run "
          "--model smollm2:135m",
          fields_of(*options), [options] { return run(*options); }};
}

}  // namespace tessera::app
