// Exponential and logarithm whose bits are the same on every machine: plain double arithmetic in a fixed
// order, no libm. For tables computed at load that decide a model's results (docs: invariant I1).
#pragma once

#include <cmath>
#include <limits>

namespace tessera {

// log x for finite x > 0, within a few units in the last place; NaN otherwise.
inline double det_log(double x) {
  if (!(x > 0) || !(x <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::quiet_NaN();
  constexpr double kLn2High = 6.93147180369123816490e-01;  // low 32 bits zero: products with exponents exact
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact
  if (m < 0.70710678118654752440) {
    m *= 2;
    --exponent;
  }
  // log m = 2 artanh((m - 1) / (m + 1)); |s| < 0.172
  const double s = (m - 1) / (m + 1);
  const double z = s * s;
  double series = 0;
  for (int n = 25; n >= 3; n -= 2) series = (series + 1.0 / n) * z;
  return exponent * kLn2High + (2 * s + (2 * s * series + exponent * kLn2Low));
}

// e^x; 0 below and infinity above the range of double.
inline double det_exp(double x) {
  if (x != x) return x;
  if (x > 709.0) return std::numeric_limits<double>::infinity();
  if (x < -745.0) return 0;
  constexpr double kLn2High = 6.93147180369123816490e-01;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  const double k = std::nearbyint(x * 1.44269504088896338700);
  const double r = (x - k * kLn2High) - k * kLn2Low;  // |r| <= ln 2 / 2
  double series = 1;
  for (int n = 15; n >= 1; --n) series = 1 + series * r / n;
  return std::ldexp(series, static_cast<int>(k));
}

// base^exponent for base > 0.
inline double det_pow(double base, double exponent) {
  return det_exp(exponent * det_log(base));
}

}  // namespace tessera
