// The law of floats with a list of significands, element by element [HDQT H19, H22].
#include "csrc/quantizers/minifloat.h"

#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

void minifloat_f32f32(const float* x, int64_t n, const MinifloatGrid& grid, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = minifloat_nearest(x[i], grid);
}

void minifloat_f32f32_stochastic(const float* x, int64_t rows, int64_t cols, const MinifloatGrid& grid,
                                 const Draw& draw, int64_t row0, float* y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      y[r * cols + c] = minifloat_stochastic(x[r * cols + c], grid, draw, row0 + r, c);
    }
  }
}

void minifloat_f32f32f32_hysteresis(const float* x, const float* previous, int64_t n, const MinifloatGrid& grid,
                                    float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = minifloat_hysteresis(x[i], previous[i], grid);
}

}  // namespace quintil::kernels::scalar
