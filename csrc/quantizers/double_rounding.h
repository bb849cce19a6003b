// Double Rounding: the integers of a lower width are a second rounding of those stored at the highest [DR D1-D5].
#pragma once

#include <cstdint>

#include "csrc/core/rounding.h"
#include "csrc/core/types.h"

namespace quintil {

// [D4] Full two's complement, or 0 .. 2^b-1. One signed bit has the three values -1, 0, 1.
inline int32_t lowest_code(int64_t bits, bool is_signed) {
  return is_signed ? -(1 << (bits - 1)) : 0;
}
inline int32_t highest_code(int64_t bits, bool is_signed) {
  return is_signed ? (1 << (bits - 1)) - (bits > 1) : (1 << bits) - 1;
}

// [D2, D5] round(q / 2^shift) of integers.
inline int32_t shifted(int32_t q, int32_t shift, Rounding rounding) {
  if (shift == 0 || rounding == Rounding::kFloor) return q >> shift;
  const int32_t half = 1 << (shift - 1);
  if (rounding == Rounding::kHalfUp) return (q + half) >> shift;
  const int32_t whole = q >> shift, rest = q - (whole << shift);
  return whole + (rest > half || (rest == half && (whole & 1) != 0));
}

// [D2] clamp(round(q / 2^shift), lo, hi).
inline int8_t twice_rounded(int8_t q, int32_t shift, Rounding rounding, int32_t lo, int32_t hi) {
  const int32_t t = shifted(q, shift, rounding);
  return static_cast<int8_t>(t < lo ? lo : t > hi ? hi : t);
}

// What the largest stored integer rounds to: at one bit it can lie below the largest code, 1 of 2 bits or any floor.
// The smallest one rounds to the lowest code exactly.
inline int32_t highest_reached(int64_t stored_bits, int64_t bits, Rounding rounding) {
  const int32_t hi = highest_code(bits, true);
  const int32_t t = shifted(highest_code(stored_bits, true), static_cast<int32_t>(stored_bits - bits), rounding);
  return t < hi ? t : hi;
}

// [D1, D2] The same from a real number, without the two clamps: integers in float32, exact as far as any clamp reaches.
// Roundings are monotone, so that one clamp to lowest_code .. highest_reached stands for both.
inline float rounded_on_grid(float z, const StepGrid& grid) {
  return rounded((grid.stored ? half_even(z) : z) * grid.shrink, grid.rounding);
}

}  // namespace quintil
