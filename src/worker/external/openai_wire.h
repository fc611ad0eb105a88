// OpenAI's wire format from the client's side: a request as an engine's JSON, an engine's answer as deltas.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "core/engine_messages.h"
#include "worker/external/profile.h"

namespace tessera::worker::external {

// "/v1/chat/completions" or "/v1/completions".
const char* request_path(const EngineRequest& request);
// The body, always of a stream with its usage at the end. Corrupt when a JSON field of the request is none.
Result<std::string> request_body(const EngineRequest& request, const EngineProfile& profile);

// An engine's error answer in whatever shape: {"error":{…}}, {"error":"…"}, {"object":"error",…},
// {"detail":…}, or text. A 4xx is the request's own fault (but 401, 403, 404, 408, 429: those are ours or the
// engine's), all else the engine's.
EngineEnd engine_error(int http_status, std::string_view body, const EngineProfile& profile);

// Reads the events of one stream. One thread.
class AnswerReader {
 public:
  using Sink = std::function<void(EngineDelta delta)>;
  // `request` must outlive it.
  AnswerReader(const EngineRequest& request, const EngineProfile& profile, Sink sink);

  // One event's data. False: the answer is over, for better or worse; end() says how.
  bool event(std::string_view data);
  // No more comes. What the client shall hear: a stream without its [DONE] or without a reason why each
  // choice ended was cut short, and that is the engine's fault.
  EngineEnd end();

  bool begun() const { return begun_; }            // something was told
  bool miscounted() const { return miscounted_; }  // after end(): its usage was absent or impossible

 private:
  struct Choice {
    int events = 0;  // with something in them: at least that many tokens
    bool finished = false;
  };
  bool fail(std::string what);
  bool read_choice(const Json& choice);
  void read_usage(const Json& usage);
  void check_usage(EngineEnd& end);

  const EngineRequest& request_;
  const EngineProfile& profile_;
  const Sink sink_;
  std::vector<Choice> choices_;
  std::optional<EngineEnd> over_;
  bool done_ = false;
  bool begun_ = false;
  bool miscounted_ = false;
  bool has_usage_ = false;
  int64_t prompt_tokens_ = 0, completion_tokens_ = 0, cached_tokens_ = 0;
};

}  // namespace tessera::worker::external
