// Sums in a fixed order (N8).
#include <algorithm>

#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

void sum_rows_f32(const float* x, int64_t rows, int64_t cols, int64_t ld, float* out) {
  std::fill(out, out + cols, 0.0f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[c] += x[r * ld + c];
  }
}

}  // namespace quintil::kernels::scalar
