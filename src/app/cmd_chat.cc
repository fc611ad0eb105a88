// chat: a conversation at the terminal.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/local_chat.h"
#include "base/files.h"

namespace tessera::app {
namespace {

struct ChatOptions : ModelOptions {
  std::string system;
  double temperature = 0.7;
  int max_tokens = 1024;
  template <typename V>
  void fields(V& v) {
    v("system", system, "a system message");
    v("temperature", temperature, "0 = always the likeliest token");
    v("max-tokens", max_tokens, "tokens of an answer at most");
    ModelOptions::fields(v);
  }
};

constexpr const char* kHelp =
    "/clear          forget the conversation\n"
    "/system TEXT    set the system message and start over\n"
    "/save FILE      write the conversation as JSON\n"
    "/help           this text\n"
    "/exit           leave (so does Ctrl-D); Ctrl-C stops an answer\n";

class Chat {
 public:
  Chat(api::Completer& completer, ChatOptions& options) : completer_(completer), options_(options) {
    clear();
  }

  void clear() {
    messages_ = OrderedJson::array();
    if (!options_.system.empty()) messages_.push_back({{"role", "system"}, {"content", options_.system}});
  }

  // False: leave.
  bool command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (name == "/exit" || name == "/quit" || name == "/bye") return false;
    if (name == "/help") {
      std::fputs(kHelp, stderr);
    } else if (name == "/clear") {
      clear();
    } else if (name == "/system") {
      options_.system = rest;
      clear();
    } else if (name == "/save") {
      Status status =
          rest.empty() ? invalid_argument("/save FILE") : write_file_atomic(rest, messages_.dump(2) + "\n");
      if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
    } else {
      std::fprintf(stderr, "no such command: %s (try /help)\n", name.c_str());
    }
    return true;
  }

  void ask(const std::string& line, InterruptGuard& interrupts) {
    messages_.push_back({{"role", "user"}, {"content", line}});
    api::CompletionRequest request;
    request.chat = true;
    request.messages = std::make_shared<const OrderedJson>(messages_);
    request.sampling.temperature = static_cast<float>(options_.temperature);
    request.max_tokens = options_.max_tokens;
    interrupts.reset();
    const Answer answer = stream_answer(completer_, std::move(request), interrupts);
    std::fputc('\n', stdout);
    interrupts.reset();
    if (!answer.status.ok()) {
      std::fprintf(stderr, "%s\n", answer.status.message().c_str());
      messages_.erase(messages_.size() - 1);
      return;
    }
    messages_.push_back({{"role", "assistant"}, {"content", answer.text}});
  }

 private:
  api::Completer& completer_;
  ChatOptions& options_;
  OrderedJson messages_;
};

int chat(ChatOptions& options) {
  auto local = LocalCluster::start(options, nullptr);
  if (!local.ok()) return report(local.status());
  LocalCompleter completer(**local);
  if (!completer.get()->info().has_chat_template)
    return report(unsupported(options.model + " ships no chat template; use `tessera run --raw`"));
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal)
    std::fprintf(stderr, "%s: /help for commands, Ctrl-D to leave\n", (*local)->model().served_name.c_str());
  InterruptGuard interrupts;
  Chat conversation(*completer.get(), options);
  std::string line;
  for (;;) {
    if (terminal) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) {
      if (!interrupts.interrupted()) return kDone;
      interrupts.reset();  // Ctrl-C at the prompt drops the line
      std::cin.clear();
      clearerr(stdin);
      std::fputc('\n', stderr);
      continue;
    }
    if (line.empty()) continue;
    if (line.front() == '/') {
      if (!conversation.command(line)) return kDone;
    } else {
      conversation.ask(line, interrupts);
    }
  }
}

}  // namespace

Command chat_command() {
  auto options = std::make_shared<ChatOptions>();
  return {"chat", "a conversation with a model in this process", kHelp, fields_of(*options),
          [options] { return chat(*options); }};
}

}  // namespace tessera::app
