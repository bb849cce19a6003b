// The range that the codes of a forward operand span.
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

}  // namespace quintil::ops
