// Stand-ins for tests of what lies between the HTTP server and the engine.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/completer.h"
#include "net/http.h"

namespace tessera::api {

// Hands its sink to the test, which plays the engine.
class ScriptedCompleter final : public Completer {
 public:
  explicit ScriptedCompleter(std::string id = "m") {
    info_.id = std::move(id);
    info_.context_length = 64;
    info_.vocab_size = 100;
  }
  ModelInfo info() const override { return info_; }
  std::function<void()> submit(CompletionRequest r, std::shared_ptr<CompletionSink> s) override {
    request = std::move(r);
    sink = s;
    if (during_submit) during_submit(*s);
    return [this] { ++cancels; };
  }
  Result<std::vector<TokenId>> tokenize(const std::string&, bool) const override {
    return std::vector<TokenId>{1};
  }
  Result<std::vector<TokenId>> tokenize_chat(const OrderedJson&, const OrderedJson*,
                                             text::ChatEnding) const override {
    return std::vector<TokenId>{1};
  }
  Result<std::string> detokenize(const std::vector<TokenId>&) const override { return std::string("x"); }
  std::string token_text(TokenId) const override { return "x"; }

  CompletionRequest request;
  std::shared_ptr<CompletionSink> sink;
  std::function<void(CompletionSink&)> during_submit;
  int cancels = 0;

 private:
  ModelInfo info_;
};

class RecordingWriter final : public net::ResponseWriter {
 public:
  void send(net::HttpResponse r) override {
    TESSERA_CHECK(status == 0, "answered twice");
    status = r.status;
    body = r.body;
    headers = r.headers;
    over = true;
  }
  void begin_stream(int s, std::string content_type, net::Headers h) override {
    TESSERA_CHECK(status == 0, "answered twice");
    status = s;
    type = content_type;
    headers = h;
  }
  bool write(std::string chunk) override {
    TESSERA_CHECK(!over, "written after the end");
    if (gone) return false;
    body += chunk;
    return true;
  }
  void end_stream() override { over = true; }
  bool client_gone() const override { return gone; }
  void on_client_gone(std::function<void()> f) override { notify = std::move(f); }

  void leave() {
    gone = true;
    if (notify) notify();
  }
  // Empty when absent.
  std::string header(const std::string& name) const {
    for (const auto& [key, value] : headers)
      if (key == name) return value;
    return {};
  }
  int status = 0;
  std::string body, type;
  net::Headers headers;
  bool over = false, gone = false;
  std::function<void()> notify;
};

}  // namespace tessera::api
