// Integer sums to real numbers, with a scale for every column.
#include "csrc/kernels/scalar/kernels.h"

namespace quintil::kernels::scalar {

void scale_s32f32_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e, float* out,
                          int64_t out_ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float value = static_cast<float>(x[r * ld + c]) * e.column_scale[c] * e.scale * e.inverse;
      out[r * out_ld + c] = e.bias == nullptr ? value : value + e.bias[c];
    }
  }
}

}  // namespace quintil::kernels::scalar
