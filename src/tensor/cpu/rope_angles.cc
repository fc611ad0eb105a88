#include "tensor/cpu/rope_angles.h"

#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::tensor {

void cos_sin(float angle, float* cosine, float* sine) {
  const double x = static_cast<double>(angle);
  if (!(std::fabs(x) <= 0x1p30)) {  // NaN and what no position can reach
    *cosine = *sine = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  // pi / 2 in three parts of at most 24 bits: products with the quadrant number are nearly exact.
  constexpr double kTwoOverPi = 0.63661977236758134308;
  constexpr double kHalfPi1 = 1.570796251296997;      // upper 24 bits
  constexpr double kHalfPi2 = 7.549789415861596e-08;  // next ones
  constexpr double kHalfPi3 = 5.390302858158119e-15;
  const double quadrants = std::nearbyint(x * kTwoOverPi);
  const double r = ((x - quadrants * kHalfPi1) - quadrants * kHalfPi2) - quadrants * kHalfPi3;
  const double s = r * r;
  // Taylor series: |r| <= pi / 4, errors far below a float's last place.
  const double sin_r =
      r + r * s *
              (-1.0 / 6 + s * (1.0 / 120 + s * (-1.0 / 5040 + s * (1.0 / 362880 + s * (-1.0 / 39916800 +
                                                                                       s / 6227020800.0)))));
  const double cos_r =
      1.0 +
      s * (-1.0 / 2 +
           s * (1.0 / 24 + s * (-1.0 / 720 + s * (1.0 / 40320 + s * (-1.0 / 3628800 + s / 479001600.0)))));
  const int64_t quadrant = static_cast<int64_t>(quadrants) & 3;
  const double c = quadrant % 2 == 0 ? cos_r : sin_r;
  const double v = quadrant % 2 == 0 ? sin_r : cos_r;
  *cosine = static_cast<float>(quadrant == 1 || quadrant == 2 ? -c : c);
  *sine = static_cast<float>(quadrant >= 2 ? -v : v);
}

}  // namespace tessera::tensor
