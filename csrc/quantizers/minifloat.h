// Floats whose significands shrink from binade to binade [HDQT H18, H19].
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "csrc/core/philox.h"

namespace quintil {

inline int32_t minifloat_binade(float x, const MinifloatGrid& grid) {
  const auto exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(x) >> 23 & 0xFFu);
  const int32_t binade = grid.first_exponent - exponent;
  return binade < grid.binades ? binade : grid.binades - 1;
}

// The sign of x, and NaN, come back; magnitudes stop at the top.
inline float minifloat_value(float x, float units, int32_t binade, const MinifloatGrid& grid) {
  if (std::isnan(x)) return x;
  const float magnitude = binade < 0 ? grid.top : std::fmin(units * grid.steps[binade], grid.top);
  return std::copysign(magnitude, x);
}

inline float minifloat_nearest(float x, const MinifloatGrid& grid) {
  const int32_t d = minifloat_binade(x, grid);
  return minifloat_value(x, d < 0 ? 0.0f : std::rint(std::fabs(x) * grid.inverses[d]), d, grid);
}

// Up with probability frac(units), to within 2^-17; multiples never move (N5).
inline float minifloat_stochastic(float x, const MinifloatGrid& grid, const Draw& draw, int64_t row, int64_t column) {
  const int32_t d = minifloat_binade(x, grid);
  if (d < 0) return minifloat_value(x, 0.0f, d, grid);
  const float units = std::fabs(x) * grid.inverses[d], whole = std::floor(units);
  const float threshold = 65536.0f * (units - whole);
  const bool up = static_cast<float>(random_bits(draw, row, column)) + 0.5f < threshold;
  return minifloat_value(x, up ? whole + 1.0f : whole, d, grid);
}

// [H22] Towards the previous value: the number of the grid above x where that was larger than x, else the one below.
inline float minifloat_hysteresis(float x, float previous, const MinifloatGrid& grid) {
  const int32_t d = minifloat_binade(x, grid);
  if (d < 0) return minifloat_value(x, 0.0f, d, grid);
  const float units = std::fabs(x) * grid.inverses[d], whole = std::floor(units);
  const bool away = (previous > x) == !(x < 0.0f);  // from zero
  return minifloat_value(x, away ? std::ceil(units) : whole, d, grid);
}

}  // namespace quintil
