// The uniform quantisers of HDQT: range, step, code [HDQT H1, H2, H7, H8]. The law of every instruction set.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "csrc/core/philox.h"
#include "csrc/core/rounding.h"
#include "csrc/core/types.h"

namespace quintil {

inline int32_t largest_code(int64_t bits, bool is_signed) {
  return static_cast<int32_t>(is_signed ? (int64_t{1} << (bits - 1)) - 1 : (int64_t{1} << bits) - 1);
}

// [H1] step = m / Q with m = fraction * max|x|; NaN where max|x| is not finite (N10).
inline float dynamic_step(uint32_t absmax_bits, float fraction, int32_t top) {
  if (absmax_bits >= 0x7F800000u) return std::bit_cast<float>(0x7FC00000u);
  return fraction * std::bit_cast<float>(absmax_bits) / static_cast<float>(top);
}

// [H8] the stochastic quantisers cap the range.
inline float stochastic_step(uint32_t absmax_bits, float fraction, int32_t top) {
  if (absmax_bits >= 0x7F800000u) return std::bit_cast<float>(0x7FC00000u);
  return std::fmin(fraction * std::bit_cast<float>(absmax_bits), kStochasticCap) / static_cast<float>(top);
}

inline uint8_t store_code(float rounded, const CodeGrid& grid) {
  const float lo = static_cast<float>(grid.lo), hi = static_cast<float>(grid.hi);
  const float clamped = rounded < lo ? lo : rounded > hi ? hi : rounded;
  return static_cast<uint8_t>(static_cast<int32_t>(clamped) + grid.zero);
}

// [H2] clamp(rint(x / (s + eps))): a true division, since multiplying by 1/s moves near-ties. NaN has code 0.
inline uint8_t nearest_code(float x, const CodeGrid& grid) {
  const float u = x / grid.divisor;
  return std::isnan(u) ? static_cast<uint8_t>(grid.zero) : store_code(half_even(u), grid);
}

// [H8] the same with the fraction decided by the random bits of the element's place.
inline uint8_t stochastic_code(float x, const CodeGrid& grid, const Draw& draw, int64_t row, int64_t column) {
  const float u = x / grid.divisor;
  if (std::isnan(u)) return static_cast<uint8_t>(grid.zero);
  return store_code(stochastic(u, random_bits(draw, row, column), draw.bits), grid);
}

}  // namespace quintil
