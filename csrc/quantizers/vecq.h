// VecQ: weights as alpha times half-integers, chosen by direction first (steer), then by length (drive) [VECQ V1-V9].
#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/core/rounding.h"
#include "csrc/core/types.h"

namespace quintil {

constexpr double kVecqEpsilon = 1e-7;  // added to steps and to |v|^2 [V5, V6]

// [V5] The step of the smallest orientation loss for numbers of a normal distribution, in standard deviations; beyond
// 8 bits the levels cover three of them to either side.
inline double gaussian_step(int64_t bits) {
  constexpr double steps[] = {1.0, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308};
  return bits <= 8 ? steps[bits - 1] : 6.0 / static_cast<double>((int64_t{1} << bits) - 1);
}

// [V3] All 2^bits half-integers, none of them 0. Zeros of either sign lie at +1/2.
inline LevelGrid level_grid(float step, int64_t bits) {
  const auto half = static_cast<float>(int64_t{1} << (bits - 1));
  return {step + kStepEpsilon, -half, half - 1.0f};
}

inline float level_of(float x, const LevelGrid& grid) {
  return clamped(half_even(x / grid.divisor - 0.5f), grid.lo, grid.hi) + 0.5f;
}

// [V9] The integer below the level; NaN has code 0.
inline int32_t level_code(float level) {
  return std::isnan(level) ? 0 : static_cast<int32_t>(level - 0.5f);
}

// [V6, V8]
inline float level_value(float x, const LevelGrid& grid, const LevelValue& value) {
  const float y = value.alpha * level_of(x, grid);
  return value.ratio == 0.0f ? y : y + value.ratio * (clamped(x, value.floor, value.ceiling) - y);
}

}  // namespace quintil
