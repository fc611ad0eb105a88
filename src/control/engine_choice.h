// Which of several ways to answer a request is the best: our own workers' sessions and other engines, weighed
// by measured speed, queue and what they hold of the prompt. Pure functions of a snapshot.
#pragma once

#include <string>
#include <vector>

#include "core/engine_messages.h"

namespace tessera::control {

// One way, as it is now. Times are moving averages of what its answers took; 0: none was measured yet.
struct EngineOption {
  std::string name;  // for messages: "our own workers", or a worker's name with its engine
  EngineFeatures features = 0;
  bool serves = true;         // ready, not draining, its breaker closed
  std::string why_not;        // when it does not serve
  int in_flight = 0;          // requests that we gave it and that run
  int waiting = 0;            // in its own queue, whoever they are from
  double kv_use = 0;          // 0 to 1
  double first_token_s = 0;   // alone: of a prompt of `measured_bytes`
  double measured_bytes = 0;  // moving average of the prompts behind first_token_s
  double token_s = 0;         // between two tokens of a stream
  double width = 1;           // requests that it answers at once without each getting slower
  double held_share = 0;      // of this prompt that it likely has in its prefix cache, 0 to 1
  bool local_exact = false;   // keeps invariant I1: wins a tie
};

struct EngineWish {
  EngineFeatures needs = 0;
  double prompt_bytes = 0;
  double answer_tokens = 256;  // expected
};

// Seconds until the answer is whole, as far as was measured; what was never measured counts as the best of
// the others, so that it gets tried.
double expected_seconds(const EngineOption& option, const EngineWish& wish,
                        const std::vector<EngineOption>& all);

// Index of the best option that serves and has all that is needed, or -1.
int choose_engine(const std::vector<EngineOption>& options, const EngineWish& wish);

// "logprobs, tools"
std::string feature_list(EngineFeatures features);
// Why choose_engine() gave -1: what no option has, or why those that have it do not serve.
std::string why_no_engine(const std::vector<EngineOption>& options, const EngineWish& wish);

}  // namespace tessera::control
