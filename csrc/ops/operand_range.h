// The range that the codes of an operand span, where it is more than the largest number alone.
#pragma once

#include <cstdint>

#include "csrc/core/types.h"

namespace quintil::ops {

// The range m of a forward operand: fraction * max|x| [HDQT H1], but no more than `rms` root mean squares of x, where that
// is not 0.
struct RangeRule {
  float fraction;
  double rms;
};

// m in the place of max|x|; what is not finite stays so. Sums run over the chunks of N8.
AbsMax operand_range(const float* x, int64_t n, RangeRule rule);

// The same bound for an operand of the backward, whose largest number is known: n numbers with this sum of squares.
AbsMax bounded_range(AbsMax range, double squares, int64_t n, double rms);

// In double, over the chunks of N8; exact for integers.
double sum_of_squares(const float* x, int64_t n);
double sum_of_squares(const int16_t* x, int64_t n);

}  // namespace quintil::ops
