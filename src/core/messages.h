// Messages between a gateway's sessions and the hops of their routes, and between neighbouring hops. Plain
// values: the in-process transport moves them, the wire will encode them. All carry session and epoch; a
// receiver drops messages of an older epoch (invariant I5).
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "core/step.h"
#include "core/types.h"

namespace tessera {

struct Hop {
  std::string worker;  // the worker's name, an address of the transport
  BlockRange blocks;   // what this hop executes
  bool operator==(const Hop&) const = default;
};
using Route = std::vector<Hop>;  // covers [0, N) once, in order

// Gateway → every hop, in parallel. The hop admits the session (Opened) or refuses it (Refused) at once;
// waiting for room is the gateway's business, so that two hops never wait for each other.
struct OpenSession {
  SessionId session = 0;
  Epoch epoch = 0;
  std::string gateway;  // where Opened, Token, … go
  std::shared_ptr<const Route> route;
  int hop = 0;  // index into route: this receiver
  // Prompt and already committed output: what the head feeds, what names the prefix (all hops), what
  // penalties count.
  std::shared_ptr<const std::vector<TokenId>> tokens;
  int prompt_tokens = 0;  // tokens beyond it are committed output
  int max_length = 0;     // prompt + max_tokens: decides the RoPE variant and admission
  SamplingParams params;
  std::string salt;  // tenant's cache salt: separates prefixes
  int priority = 0;  // higher first: orders prefill, and who is preempted last
};

// Gateway → head, after every hop has opened: KV before `start` is valid on all of them.
struct StartSession {
  SessionId session = 0;
  Epoch epoch = 0;
  int start = 0;
};

// Hop → next hop: rows of the residual stream for positions [start, start + tokens.size()).
struct Rows {
  SessionId session = 0;
  Epoch epoch = 0;
  int start = 0;
  std::vector<TokenId> tokens;  // the tokens at these positions: name the KV blocks
  std::vector<float> hidden;    // [tokens.size(), hidden_size]
  bool sample = false;          // the tail samples after the last row
};

// Tail → head and gateway at once.
struct Token {
  SessionId session = 0;
  Epoch epoch = 0;
  int position = 0;  // of this token in the sequence
  SampledToken sampled;
  FinishReason finish =
      FinishReason::kNone;  // kStop: this token is a stop token; kLength: max_tokens reached
  // First token of a session with prompt_logprobs only: entry i scores prompt token i; entry 0 has token -1.
  std::vector<SampledToken> prompt_logprobs;
};

// Gateway → every hop: forget the session; full KV blocks stay in the prefix tree.
struct CloseSession {
  SessionId session = 0;
  Epoch epoch = 0;
};

// Hop → gateway.
struct Opened {
  SessionId session = 0;
  Epoch epoch = 0;
  int hop = 0;
  int cached_tokens = 0;  // multiple of kKvBlockTokens, less than the number of tokens
};
struct Refused {
  SessionId session = 0;
  Epoch epoch = 0;
  int hop = 0;
  Status reason;  // ResourceExhausted: try again when room comes; anything else is final
};
// The hop gave the session's KV to others; the session may open again with the next epoch.
struct Preempted {
  SessionId session = 0;
  Epoch epoch = 0;
  int hop = 0;
};
struct Failed {
  SessionId session = 0;
  Epoch epoch = 0;
  int hop = 0;
  Status reason;
};

using Message =
    std::variant<OpenSession, StartSession, Rows, Token, CloseSession, Opened, Refused, Preempted, Failed>;

// Takes messages for a named worker or gateway. Thread-safe; must not block.
class MessageSink {
 public:
  virtual ~MessageSink() = default;
  virtual void send(const std::string& to, Message message) = 0;
};

inline SessionId session_of(const Message& message) {
  return std::visit([](const auto& m) { return m.session; }, message);
}

}  // namespace tessera
