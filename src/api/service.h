// CompletionService: an HTTP request for a completion in, an answer or a stream out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/caller.h"
#include "api/completer.h"
#include "api/model_set.h"
#include "base/clock.h"
#include "net/http.h"

namespace tessera::api {

enum class Endpoint { kChatCompletions, kCompletions };

// What happened to one request, for metrics and logs. Thread-safe: on_end may come from the thread that saw
// the client go, while tokens still arrive.
class CompletionObserver {
 public:
  virtual ~CompletionObserver() = default;
  virtual void on_model(const std::string& model) = 0;  // once, when the model is known
  virtual void on_prompt(int tokens) = 0;               // once, before the first token, where it is known
  virtual void on_tokens(int choice, int count) = 0;    // generated tokens, as they arrive
  // Once, last. `status` is what the client got; of a stream that broke after its head, the error's. 499: the
  // client went away.
  virtual void on_end(int status, const Usage& usage) = 0;
};

// Requests that are being answered.
class RunningJobs;

// Thread-safe; keeps nothing of a request after its end. Both references must outlive all requests.
class CompletionService {
 public:
  CompletionService(const ModelSet& models, const Clock& clock);

  // Answers through `writer`, now or later; never blocks. The request is cancelled when its client goes.
  void handle(Endpoint endpoint, const net::HttpRequest& request, const Caller& caller,
              std::shared_ptr<net::ResponseWriter> writer,
              std::shared_ptr<CompletionObserver> observer) const;

  // Ends every answer under way with `error`, in a stream as its last event, and cancels the work behind it.
  // Answers the ids of these requests.
  std::vector<std::string> cut_running(const ApiError& error) const;

 private:
  const ModelSet& models_;
  const Clock& clock_;
  const std::shared_ptr<RunningJobs> running_;
};

}  // namespace tessera::api
