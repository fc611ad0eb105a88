// What one undisturbed machine answers with the toy model: engine::toy::expected_output() in linear time.
#pragma once

#include <vector>

#include "cluster/session_manager.h"
#include "engine/toy_model.h"

namespace tessera::sim {

struct Answer {
  std::vector<SampledToken> tokens;  // logprobs where the request asks for them
  FinishReason finish = FinishReason::kNone;
};
Answer reference_answer(const cluster::SessionRequest& request, const engine::toy::ToyOptions& options);

}  // namespace tessera::sim
