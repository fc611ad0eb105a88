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

// How a hop's rows travel to the next one. kLossless keeps invariant I1; the others are for slow links and
// make a session's answer say that it is not token-exact.
enum class RowEncoding : uint8_t {
  kLossless,  // the residual stream's own dtype
  kInt8,      // int8 codes, one float32 scale a row
  kFp8,       // e4m3 codes, one float32 scale a row
};

struct Hop {
  // An inbox of the transport: "WORKER" or "WORKER/INSTANCE". A worker process is what stands before the
  // slash.
  std::string worker;
  BlockRange blocks;                              // what this hop executes
  RowEncoding encoding = RowEncoding::kLossless;  // of the rows that it sends on
  std::string address =
      {};  // "HOST:PORT[,HOST:PORT…]" where its neighbours reach it; empty within one process
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
  // A secret that the gateway draws for each session: Rows and Token without it are dropped, so that a peer
  // can only speak to sessions that a gateway opened.
  uint64_t ticket = 0;
  std::string traceparent;  // W3C trace context of the request, empty when untraced
};

// Gateway → every hop, after all have opened. The hop forgets what it holds from `start` on and computes
// positions from there; it sends the next hop outputs from `send_from` on: those before `start` it kept
// (Opened::outputs_from said so), the rest it computes (cluster/replay.h).
struct StartSession {
  SessionId session = 0;
  Epoch epoch = 0;
  int start = 0;
  int send_from = 0;
};

// Hop → next hop: rows of the residual stream for positions [start, start + tokens.size()).
struct Rows {
  SessionId session = 0;
  Epoch epoch = 0;
  int start = 0;
  std::vector<TokenId> tokens;                    // the tokens at these positions: name the KV blocks
  std::vector<float> hidden;                      // [tokens.size(), hidden_size]
  bool sample = false;                            // the tail samples after the last row
  bool replay = false;                            // kept outputs of an earlier epoch
  RowEncoding encoding = RowEncoding::kLossless;  // of `hidden` on the wire
  uint64_t ticket = 0;
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
  uint64_t ticket = 0;
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
  // KV that is valid here, from position 0 on: of a cached prefix (a multiple of kKvBlockTokens), or of the
  // epoch before. At most the number of tokens; less at the tail, which has a row to sample from.
  int cached_tokens = 0;
  // Outputs of positions [outputs_from, cached_tokens) are kept and can be sent again.
  int outputs_from = 0;
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
// Unavailable: the route is broken, another one can go on; anything else ends the session.
struct Failed {
  SessionId session = 0;
  Epoch epoch = 0;
  int hop = 0;
  Status reason;
  // The neighbour that could not be reached, when it is not the sender who failed; `hop` then says nothing.
  std::string peer = {};
};

// Gateway → hop: report where the time of the session's next `steps` steps goes.
struct TraceSteps {
  SessionId session = 0;
  Epoch epoch = 0;
  int steps = 0;
};
// Hop → gateway, after each of them. Times by the hop's own clock, so no clocks need to agree.
struct StepTrace {
  SessionId session = 0;
  Epoch epoch = 0;
  int hop = 0;
  int position = 0;        // the step's last row of this session
  int rows = 0;            // of this session
  int batch_rows = 0;      // of all sessions
  int64_t wake_us = 0;     // from the arrival of what the step needs until the engine took it up
  int64_t queue_us = 0;    // from then until the step began
  int64_t compute_us = 0;  // the step
  int64_t send_us = 0;     // from its end until the result was encoded and handed to the link
};

using Message = std::variant<OpenSession, StartSession, Rows, Token, CloseSession, Opened, Refused, Preempted,
                             Failed, TraceSteps, StepTrace>;

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
