// The step of the smallest orientation loss on the data themselves [VECQ V4, V7].
#pragma once

#include <cstdint>

namespace quintil::ops {

// A step that is not worse than `step` for the n numbers x: the best of a grid from 0.3 to 2.5 times `step` and of the
// steps of min-max, LSQ's start and uL2Q, refined by golden sections. `step` itself for one bit, where any will do, and
// where it is not finite. step: of the table.
float searched_step(const float* x, int64_t n, int64_t bits, float step);

}  // namespace quintil::ops
