#include "control/engine_choice.h"

#include <algorithm>

namespace tessera::control {
namespace {

// The least measured value above 0, or `fallback`.
template <typename Get>
double least(const std::vector<EngineOption>& all, Get get, double fallback) {
  double best = 0;
  for (const EngineOption& option : all)
    if (const double value = get(option); value > 0 && (best == 0 || value < best)) best = value;
  return best > 0 ? best : fallback;
}

}  // namespace

double expected_seconds(const EngineOption& option, const EngineWish& wish,
                        const std::vector<EngineOption>& all) {
  double first = option.first_token_s;
  if (first <= 0)
    first = least(
        all, [](const EngineOption& o) { return o.first_token_s; }, 0.1);
  double token = option.token_s;
  if (token <= 0)
    token = least(
        all, [](const EngineOption& o) { return o.token_s; }, 0.02);
  // Prefill takes time in proportion to what is not held; a part of the first token's time does not shrink.
  constexpr double kFixedShare = 0.2;
  if (option.measured_bytes > 0) {
    const double size = std::max(wish.prompt_bytes, 1.0) / option.measured_bytes;
    first *= kFixedShare + (1 - kFixedShare) * size * (1 - option.held_share);
  } else {
    first *= kFixedShare + (1 - kFixedShare) * (1 - option.held_share);
  }
  // Those in its queue come first; above its width all share it. A full KV cache means preemption.
  const double load = (option.in_flight + option.waiting + 1) / std::max(option.width, 1.0);
  const double slower = std::max(1.0, load) * (option.kv_use > 0.9 ? 1 + 5 * (option.kv_use - 0.9) : 1);
  return (first + token * wish.answer_tokens) * slower;
}

int choose_engine(const std::vector<EngineOption>& options, const EngineWish& wish) {
  int best = -1;
  double best_s = 0;
  for (size_t i = 0; i < options.size(); ++i) {
    const EngineOption& option = options[i];
    if (!option.serves || (option.features & wish.needs) != wish.needs) continue;
    const double seconds = expected_seconds(option, wish, options);
    const bool tie_won = best >= 0 && seconds == best_s && option.local_exact;
    if (best < 0 || seconds < best_s || tie_won) {
      best = static_cast<int>(i);
      best_s = seconds;
    }
  }
  return best;
}

std::string feature_list(EngineFeatures features) {
  std::string list;
  for (size_t bit = 0; bit < engine_feature::kNames.size(); ++bit)
    if ((features >> bit & 1u) != 0)
      list += (list.empty() ? "" : ", ") + std::string(engine_feature::kNames[bit]);
  return list;
}

std::string why_no_engine(const std::vector<EngineOption>& options, const EngineWish& wish) {
  std::string text;
  for (const EngineOption& option : options) {
    const EngineFeatures missing = wish.needs & ~option.features;
    const std::string why = missing != 0 ? "lacks " + feature_list(missing) : option.why_not;
    text += (text.empty() ? "" : "; ") + option.name + ": " + (why.empty() ? "not ready" : why);
  }
  return text.empty() ? "nothing serves it" : text;
}

}  // namespace tessera::control
