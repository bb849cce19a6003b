// From numbers to integers. rint() rounds half to even: the library never changes the rounding mode.
#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/core/types.h"

namespace quintil {

inline float half_even(float u) {
  return std::rint(u);
}

// The difference from the floor is exact near every tie, so that floor(u + 0.5) of the real numbers is meant.
inline float half_up(float u) {
  const float whole = std::floor(u);
  return u - whole >= 0.5f ? whole + 1.0f : whole;
}

inline float rounded(float u, Rounding rounding) {
  switch (rounding) {
    case Rounding::kHalfEven: return half_even(u);
    case Rounding::kHalfUp: return half_up(u);
    case Rounding::kFloor: break;
  }
  return std::floor(u);
}

inline float clamped(float t, float lo, float hi) {  // NaN stays
  return t < lo ? lo : t > hi ? hi : t;
}

// |u| is stochastically rounded to floor|u| or floor|u| + 1, up with probability frac|u| to within 1 / 2^(bits+1);
// integers never move (N5). Magnitudes stop at 256, beyond every code range, so that the result converts safely.
inline float stochastic(float u, uint32_t random, int bits) {
  const float magnitude = std::fmin(std::fabs(u), 256.0f);
  const float whole = std::floor(magnitude);
  const float threshold = (bits == 16 ? 65536.0f : 256.0f) * (magnitude - whole);
  const float rounded = whole + (static_cast<float>(random) + 0.5f < threshold ? 1.0f : 0.0f);
  return u < 0 ? -rounded : rounded;
}

}  // namespace quintil
