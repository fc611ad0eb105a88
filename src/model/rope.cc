#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/det_math.h"
#include "model/config_reader.h"

namespace tessera::model {
namespace {

constexpr size_t kMaxFactors = 4096;

// What the types share, read from the parameters.
struct Base {
  int dim = 0;  // rotary dimensions
  double theta = 0;
  int max_position = 0;
  int original = 0;  // original_max_position_embeddings, or 0
};

// theta^(2i / dim), rounded where the reference rounds to float32.
std::vector<float> position_frequencies(const Base& base) {
  std::vector<float> frequencies;
  for (int i = 0; i < base.dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(base.dim);
    frequencies.push_back(static_cast<float>(det_pow(base.theta, static_cast<double>(exponent))));
  }
  return frequencies;
}

std::vector<float> inverse(std::vector<float> frequencies) {
  for (float& f : frequencies) f = 1.0f / f;
  return frequencies;
}

// Llama 3: long wavelengths divided by the factor, short ones kept, a ramp between.
void scale_llama3(ConfigReader& parameters, const Base& base, std::vector<float>& inv_freq) {
  const auto factor = static_cast<float>(parameters.positive("factor", 8.0));
  const double low = parameters.positive("low_freq_factor", 1.0);
  const double high = parameters.positive("high_freq_factor", 4.0);
  const double original = base.original > 0 ? base.original : 8192;
  if (!(high > low)) {
    parameters.fail(parameters.refuse("high_freq_factor", "expected more than low_freq_factor"));
    return;
  }
  const auto longest = static_cast<float>(original / low);
  const auto shortest = static_cast<float>(original / high);
  for (float& f : inv_freq) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength > longest) {
      f /= factor;
    } else if (!(wavelength < shortest)) {
      const float smooth = (static_cast<float>(original) / wavelength - static_cast<float>(low)) /
                           static_cast<float>(high - low);
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
}

double yarn_magnitude(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * det_log(factor) + 1.0;
}

void scale_yarn(ConfigReader& parameters, const Base& base, RopeSpec& spec) {
  const int original = base.original > 0 ? base.original : base.max_position;
  const double factor = parameters.positive("factor", static_cast<double>(base.max_position) / original);
  const double mscale = parameters.number("mscale", 0);
  const double mscale_all = parameters.number("mscale_all_dim", 0);
  double attention = mscale != 0 && mscale_all != 0
                         ? yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)
                         : yarn_magnitude(factor, 1);
  attention = parameters.positive("attention_factor", attention);
  const double beta_fast = parameters.positive("beta_fast", 32);
  const double beta_slow = parameters.positive("beta_slow", 1);
  const bool truncate = parameters.flag("truncate", true);
  parameters.ignore("finetuned");

  // The dimension whose frequency turns so many times within the original context.
  const auto dimension = [&](double turns) {
    return base.dim * det_log(original / (turns * 2 * std::numbers::pi)) / (2 * det_log(base.theta));
  };
  double low = dimension(beta_fast);
  double high = dimension(beta_slow);
  if (truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(base.dim - 1));
  if (low == high) high += 0.001;
  const std::vector<float> frequencies = position_frequencies(base);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float extrapolated = 1.0f / frequencies[i];
    const float interpolated = 1.0f / (static_cast<float>(factor) * frequencies[i]);
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
    const float keep = 1.0f - ramp;
    spec.inv_freq[i] = interpolated * (1.0f - keep) + extrapolated * keep;
  }
  spec.attention_factor = {static_cast<float>(attention)};
}

void scale_longrope(ConfigReader& parameters, const Base& base, Rope& rope) {
  const int original = base.original;
  const size_t half = static_cast<size_t>(base.dim / 2);
  const std::vector<double> factors[] = {parameters.numbers("short_factor", kMaxFactors),
                                         parameters.numbers("long_factor", kMaxFactors)};
  if (!parameters.status().ok()) return;
  for (const auto& list : factors) {
    if (list.size() != half || std::any_of(list.begin(), list.end(), [](double f) { return !(f > 0); })) {
      parameters.fail(corrupt("longrope needs " + std::to_string(half) +
                              " positive factors in each of short_factor and long_factor"));
      return;
    }
  }
  if (original < 2) {
    parameters.fail(corrupt("longrope needs original_max_position_embeddings"));
    return;
  }
  const double stretch = parameters.positive("factor", static_cast<double>(base.max_position) / original);
  const double computed = stretch <= 1 ? 1.0 : std::sqrt(1.0 + det_log(stretch) / det_log(original));
  const auto attention = static_cast<float>(parameters.positive("attention_factor", computed));
  const std::vector<float> frequencies = position_frequencies(base);
  rope.spec.inv_freq.clear();
  for (const auto& list : factors)
    for (size_t i = 0; i < half; ++i)
      rope.spec.inv_freq.push_back(1.0f / (static_cast<float>(list[i]) * frequencies[i]));
  rope.spec.attention_factor = {attention, attention};
  rope.original_context = original;
}

}  // namespace

Result<Rope> make_rope(const RopeInput& input) {
  const Json none = Json::object();
  ConfigReader parameters(input.parameters == nullptr ? none : *input.parameters, "rope parameters ");
  const std::string old_type = parameters.text("type", "default");
  const std::string type = parameters.text("rope_type", old_type);
  Base base;
  base.theta = parameters.positive("rope_theta", input.theta);
  base.max_position = input.max_position;
  base.original = parameters.count("original_max_position_embeddings", input.original_context, 1, 1 << 27);
  const double partial = parameters.positive("partial_rotary_factor", input.partial_rotary);
  if (!(base.theta > 1) || !(partial <= 1))
    return unsupported("a rope_theta of at most 1 or a partial_rotary_factor above 1");
  base.dim = static_cast<int>(input.head_dim * partial);
  if (base.dim < 2 || base.dim % 2 != 0)
    return unsupported(std::to_string(base.dim) + " rotary dimensions: expected an even number");

  Rope rope;
  rope.spec.rotary_dim = base.dim;
  rope.spec.inv_freq = inverse(position_frequencies(base));
  rope.spec.attention_factor = {1.0f};
  if (type == "linear") {
    const auto factor = static_cast<float>(parameters.positive("factor", 1.0));
    for (float& f : rope.spec.inv_freq) f /= factor;
  } else if (type == "llama3") {
    scale_llama3(parameters, base, rope.spec.inv_freq);
  } else if (type == "yarn") {
    scale_yarn(parameters, base, rope.spec);
  } else if (type == "longrope" || type == "su") {
    scale_longrope(parameters, base, rope);
  } else if (type != "default") {
    return unsupported("rope scaling type " + type + ": known are default, linear, llama3, yarn, longrope");
  }
  TESSERA_RETURN_IF_ERROR(parameters.finish());
  if (!input.gguf_factors.empty()) {
    if (input.gguf_factors.size() != rope.spec.inv_freq.size())
      return corrupt("rope_freqs.weight holds " + std::to_string(input.gguf_factors.size()) +
                     " factors, expected " + std::to_string(rope.spec.inv_freq.size()));
    for (size_t i = 0; i < rope.spec.inv_freq.size(); ++i)
      rope.spec.inv_freq[i] /= static_cast<float>(input.gguf_factors[i]);
  }
  return rope;
}

}  // namespace tessera::model
