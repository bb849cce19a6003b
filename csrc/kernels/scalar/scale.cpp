// Matrices with a scale for every column: integer sums to real numbers and on to codes, real numbers to codes.
#include "csrc/kernels/scalar/kernels.h"
#include "csrc/quantizers/uniform.h"

namespace quintil::kernels::scalar {

namespace {

float real_number(int32_t total, const ColumnEpilogue& e, int64_t row, int64_t column) {
  float value = static_cast<float>(total) * e.column_scale[column] * e.scale * e.inverse;
  if (e.bias != nullptr) value += e.bias[column];
  if (e.residual != nullptr) value += e.residual[row * e.residual_ld + column];
  return e.relu && value < 0 ? 0.0f : value;
}

}  // namespace

void scale_s32f32_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e, float* out,
                          int64_t out_ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[r * out_ld + c] = real_number(x[r * ld + c], e, r, c);
  }
}

void scale_s32u8_columns(const int32_t* x, int64_t rows, int64_t cols, int64_t ld, const ColumnEpilogue& e,
                         const CodeGrid& grid, uint8_t* out, int64_t out_ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[r * out_ld + c] = nearest_code(real_number(x[r * ld + c], e, r, c), grid);
  }
}

void quantize_f32u8_columns(const float* x, int64_t rows, int64_t cols, int64_t ld, const float* gain,
                            const float* shift, const CodeGrid& grid, uint8_t* out, int64_t out_ld) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[r * out_ld + c] = nearest_code(x[r * ld + c] * gain[c] + shift[c], grid);
  }
}

}  // namespace quintil::kernels::scalar
