// What becomes of the sums of a recurrent layer between two products: the logistic function and the hyperbolic tangent by
// + - * / alone (N3), so that states have the same bits everywhere; of libraries no two agree in the last bit.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "csrc/core/rounding.h"

namespace quintil {

// e^x for x <= 0, 0x1p-125 or so below -87: x = n ln 2 + r with r in +-0.35, e^r by a polynomial of degree 7.
inline float exp_of_negative(float x) {
  const float a = x < -87.0f ? -87.0f : x;
  const float n = half_even(a * 1.44269504f);
  const float r = (a - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first of 9 bits
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = (p * (r * r) + r) + 1.0f;
  return e * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

inline float logistic(float x) {
  if (std::isnan(x)) return x;
  const float t = exp_of_negative(-std::fabs(x));
  return (x >= 0.0f ? 1.0f : t) / (1.0f + t);
}

// An odd polynomial below 0.625, where the quotient would cancel.
inline float hyperbolic_tangent(float x) {
  if (std::isnan(x)) return x;
  const float size = std::fabs(x);
  if (size < 0.625f) {
    const float z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return (p * z) * x + x;
  }
  const float t = exp_of_negative(-2.0f * size);
  return std::copysign((1.0f - t) / (1.0f + t), x);
}

}  // namespace quintil
