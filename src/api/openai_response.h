// Answers of the two completion endpoints: one JSON object, or the events of a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/completer.h"
#include "api/openai_request.h"
#include "base/json.h"

namespace tessera::api {

// What all chunks of one answer share.
struct AnswerHead {
  std::string id;  // "chatcmpl-…" or "cmpl-…"
  int64_t created = 0;
  std::string model;
  bool chat = false;
  bool include_usage = false;     // stream: every chunk has a "usage" key, null but in the last
  bool return_token_ids = false;  // also prompt_token_ids
  CompletionSink::Start start;    // known before the first chunk
};
AnswerHead answer_head(const OpenAiRequest& request, int64_t created);

// One choice, collected: what a non-streamed answer is made of.
struct CollectedChoice {
  std::string text;
  std::string reasoning;
  std::vector<TokenId> token_ids;
  std::vector<TokenScore> logprobs;
  FinishReason finish = FinishReason::kNone;
  std::shared_ptr<OrderedJson> tool_calls;  // whole, or null
  void append(const Delta& delta);
};
// `choices` in order of their index; choice index / n is the index of its prompt.
std::string completion_body(const AnswerHead& head, const std::vector<CollectedChoice>& choices, int n,
                            bool logprobs, const Usage& usage);

// Writes the events of one stream, complete with "data: " and the blank line. Not thread-safe.
class StreamWriter {
 public:
  StreamWriter(AnswerHead head, int choices, int n);

  // Everything that this delta adds to the stream: possibly the role chunk first, possibly nothing (a delta
  // that carries no text, ids, scores or end).
  std::string delta(const Delta& delta);
  // The usage chunk if asked for, and [DONE].
  std::string done(const Usage& usage);
  // A last event with the error object, instead of done().
  static std::string error(const ApiError& error);

 private:
  struct ChoiceState {
    bool begun = false;
    bool called_tool = false;
    int64_t text_offset = 0;  // legacy logprobs: characters before the next token
  };
  std::string event(OrderedJson choices, OrderedJson usage);
  std::string role_event(int choice);

  const AnswerHead head_;
  const int n_;
  bool first_event_ = true;
  std::string not_token_exact_;  // of a delta, not yet written
  std::vector<ChoiceState> states_;
};

// {"content":[{"token","logprob","bytes","top_logprobs"}],"refusal":null}
OrderedJson chat_logprobs(const std::vector<TokenScore>& scores);
// The four legacy lists. `text_offset` is the number of characters before the first token; it is moved past
// the last. Tokens that are not valid UTF-8 are written "bytes:\xe2\x82".
OrderedJson text_logprobs(const std::vector<TokenScore>& scores, int64_t& text_offset);
// "stop", "length".
const char* finish_name(FinishReason reason);

}  // namespace tessera::api
