// The quantisers of LUQ: 0 and powers of two times alpha [HDQT H14-H16], and the range of SAWB [HDQT H13].
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "csrc/core/philox.h"

namespace quintil {

// [H14] range / 2^exponent, NaN where it is not finite. It stops at the smallest normal number, so that every level is
// an exact multiple; smaller numbers then underflow stochastically, like all below alpha.
inline float luq_alpha(float range, int32_t exponent) {
  if (!std::isfinite(range)) return std::bit_cast<float>(0x7FC00000u);
  return range == 0 ? 0.0f : std::fmax(std::ldexp(range, -exponent), 0x1p-126f);
}

// [H15, H16] The magnitude in units of alpha. With v = |x| / alpha: below 1 it is 1 with probability v, else 0; in
// [2^k, 2^(k+1)) it is 2^(k+1) with probability (v - 2^k) / 2^k, else 2^k. The fraction of the upper case is the
// mantissa of v, so powers of two never move.
inline float luq_level(float x, float alpha, uint32_t random) {
  const float v = std::fabs(x) / alpha;
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  const float power = std::bit_cast<float>(bits & 0x7F800000u);
  const float threshold = v < 1.0f ? 65536.0f * v : static_cast<float>(bits & 0x007FFFFFu) * 0x1p-7f;
  const bool up = static_cast<float>(random) + 0.5f < threshold;
  if (v < 1.0f) return up ? 1.0f : 0.0f;
  return up ? power + power : power;
}

inline float luq_signed_level(float x, float alpha, const Draw& draw, int64_t row, int64_t column) {
  const float level = luq_level(x, alpha, random_bits(draw, row, column));
  return x < 0 ? -level : level;
}

// [H13] 12.1 sqrt(E[x^2]) - 12.2 E|x|, which suits 4 bits; max|x| where that is not positive, as for numbers of one
// size.
inline double sawb_range(double squares, double magnitudes, int64_t count, double range) {
  if (count == 0) return 0;
  const double n = static_cast<double>(count);
  const double clip = 12.1 * std::sqrt(squares / n) - 12.2 * (magnitudes / n);
  return clip <= 0 ? range : clip;
}

}  // namespace quintil
