// The law of LUQ's gradients, element by element [HDQT H15, H16].
#include "csrc/quantizers/luq.h"

#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

void luq_f32f32(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      sums[r * cols + c] += luq_signed_level(x[r * cols + c], alpha, draw, row0 + r, c);
    }
  }
}

void luq_f32s8(const float* x, int64_t rows, int64_t cols, float alpha, const Draw& draw, int64_t row0, int8_t* codes) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      codes[r * cols + c] = static_cast<int8_t>(luq_signed_level(x[r * cols + c], alpha, draw, row0 + r, c));
    }
  }
}

}  // namespace quintil::kernels::scalar
