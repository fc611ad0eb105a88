// Sequence: one open session on this hop.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "core/messages.h"
#include "engine/sampling_state.h"
#include "kv/block_pool.h"

namespace tessera::engine {

// A sequence whose next steps are timed (TraceSteps).
struct StepTimer {
  int steps_left = 0;
  std::chrono::steady_clock::time_point arrived{};  // of what the next step needs, in the engine's queue
  std::chrono::steady_clock::time_point taken_up{};
};

// Positions: [0, kv_length) are in the KV pages; [kv_length, input_end) may be computed now; tokens are known
// up to tokens.size() >= input_end. Plain data of the engine's thread.
struct Sequence {
  explicit Sequence(kv::BlockPool& pool) : pages(pool) {}

  // Read for every sequence in every step: kept together.
  int kv_length = 0;
  int input_end = 0;
  int opened_tokens = 0;  // prompt and committed output when it opened: steps beyond are decode steps
  bool preempted = false;
  bool started = false;        // StartSession has come
  bool sample_at_end = false;  // a token is wanted after the row before input_end
  bool reuse_prefix = false;   // name full blocks in the prefix tree
  int named_blocks = 0;        // of pages, from the first, that are in the prefix tree
  int rope_variant = 0;
  int high_water = 0;  // positions computed in earlier epochs: what is computed below is computed again
  kv::PageTable pages;
  std::vector<TokenId> tokens;
  SessionId id = 0;
  Epoch epoch = 0;
  int hop = 0;
  uint64_t ticket = 0;
  std::unique_ptr<StepTimer> timer;  // while it is traced
  SamplingState sampling;            // tail only

  int send_from = 0;             // not the tail: outputs before it are not wanted by the next hop
  std::vector<Rows> early_rows;  // came before StartSession

  std::string gateway;
  std::shared_ptr<const Route> route;
  int priority = 0;
  uint64_t arrival = 0;  // grows with every open
  int prompt_tokens = 0;
  int max_length = 0;
  bool may_hit = false;  // begin on cached blocks

  std::vector<float> hidden;   // not the head: [input_end - kv_length, hidden_size], after hidden_begin
  size_t hidden_begin = 0;     // floats at the front that are used up
  std::vector<Digest> hashes;  // of the full blocks of `tokens` that are known so far
  Digest hash_root{};

  int pending() const { return input_end - kv_length; }
  bool is_decoding() const { return kv_length >= opened_tokens; }
};

}  // namespace tessera::engine
