#include "tensor/cpu/quantise_weights.h"

#include <algorithm>
#include <cmath>

namespace tessera::tensor {

namespace {

constexpr float kF16Max = 65504.0f;

int nearest(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;  // also NaN
  if (x >= static_cast<float>(high)) return high;
  return static_cast<int>(std::nearbyint(x));
}

}  // namespace

void quantise_int8_group(const float* x, GroupCodes& out) {
  float biggest = 0;
  bool finite = true;
  for (int i = 0; i < 32; ++i) {
    biggest = std::max(biggest, std::fabs(x[i]));
    finite = finite && std::isfinite(x[i]);
  }
  out.scale =
      finite ? f32_to_f16(std::min(biggest / 127.0f, kF16Max)) : uint16_t{0x7e00};  // NaN stays visible
  const float scale = f16_to_f32(out.scale);
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int i = 0; i < 32; ++i)
    out.code[i] = static_cast<uint8_t>(static_cast<int8_t>(nearest(x[i] * inverse, -127, 127)));
}

void quantise_int4_group(const float* x, int count, GroupCodes& out) {
  float low = x[0];
  float high = x[0];
  bool finite = true;
  for (int i = 0; i < count; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    finite = finite && std::isfinite(x[i]);
  }
  std::fill(out.code, out.code + 32, uint8_t{0});
  if (!finite) {
    out.scale = 0x7e00;
    out.min = 0;
    return;
  }
  float best = -1;
  for (int step = 0; step <= 6; ++step) {
    const float cut = static_cast<float>(step) * 0.0125f * (high - low);
    const uint16_t scale16 = f32_to_f16(std::min((high - low - 2 * cut) / 15.0f, kF16Max));
    const uint16_t min16 = f32_to_f16(std::clamp(low + cut, -kF16Max, kF16Max));
    const float scale = f16_to_f32(scale16);
    const float min = f16_to_f32(min16);
    const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    uint8_t code[32] = {};
    float error = 0;
    for (int i = 0; i < count; ++i) {
      code[i] = static_cast<uint8_t>(nearest((x[i] - min) * inverse, 0, 15));
      const float miss = scale * static_cast<float>(code[i]) + min - x[i];
      error += miss * miss;
    }
    if (best >= 0 && error >= best) continue;
    best = error;
    out.scale = scale16;
    out.min = min16;
    std::copy(code, code + 32, out.code);
  }
}

}  // namespace tessera::tensor
