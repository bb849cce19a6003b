// What the ops of VecQ share: which elements have a step and a length in common, and the pass that steers [VECQ V3, V6].
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "csrc/core/types.h"
#include "csrc/ops/groups.h"

namespace quintil::ops {

// Steps (or lengths) are 0-dim, [C] or [C, G] for x [C, ...]: of the tensor, of each x[i], or of each of the G runs of
// equal size that x[i] is cut into.
void check_levels(const char* op, const char* name, const at::Tensor& x, const at::Tensor& steps);

// How x lies in memory for steps of a shape; runs in x[i] follow its indices, so they need the plain order.
at::MemoryFormat level_format(const at::Tensor& x, const at::Tensor& steps);

// Codes have 8 bits, or 16 where 8 are too few.
at::ScalarType code_type(int64_t bits);

// Writes codes [VECQ V9] of data in the order of `groups`, and returns the sums of every chunk.
std::vector<LevelSums> steer(const float* data, const Groups& groups, const float* steps, int64_t bits,
                             at::Tensor& codes);

}  // namespace quintil::ops
